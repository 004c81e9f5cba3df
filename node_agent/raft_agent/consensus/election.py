"""Elections: timers, pre-votes, votes (§5.2, §5.4.1 of the paper; §4.2.3, §9.6 of the thesis)."""

from __future__ import annotations

from collections.abc import Callable

from raft_agent.consensus import quorum
from raft_agent.consensus.state import RaftState
from raft_agent.consensus.types import (
    PreVote,
    PreVoteReply,
    RefusalReason,
    RequestVote,
    Role,
    TimeoutNow,
    TimerExpired,
    VoteReply,
)


class Election:
    """Stands for election and votes. `on_won` is called once this node has a quorum of votes."""

    def __init__(self, state: RaftState, on_won: Callable[[], None]) -> None:
        self._state = state
        self._on_won = on_won
        self._request_id = 0
        self._granted: set[int] = set()
        self._refused: set[int] = set()
        self._own_vote_seq = 0
        # When a candidate last asked for a pre-vote with a log that is behind this one; 0: not
        # since the timer last expired.
        self._sought_us = 0

    # --- standing

    def timer_expired(self, event: TimerExpired) -> None:
        state = self._state
        if state.vote_seq > state.vote_persisted_seq:
            # A vote is being written; one for the next term would only queue behind it.
            state.reset_election_timer()
            return
        if self._excuses_silence(self._kernel_silence_us(event)):
            return
        if state.leader_id:
            state.note("leader_lost", leader=state.leader_id)
        state.leader_id = 0
        state.silence_excused = False
        state.give_up_transfer(RefusalReason.TIMED_OUT)
        is_sought, self._sought_us = self._sought_us > state.leader_heard_us, 0
        if state.can_stand or (is_sought and state.can_stand_in):
            self._ask_for_pre_votes()
        else:
            state.role = state.resting_role()
            state.reset_election_timer()

    def _kernel_silence_us(self, event: TimerExpired) -> int | None:
        """How long ago the kernel heard a leader whom this node would follow; None: it did not.

        A leader of a later term counts too: this process may have slept through its election.
        """
        state, stamp = self._state, event.stamp
        if stamp is None:
            return event.leader_silence_us
        if stamp.term == state.current_term:
            is_leader = stamp.sender == state.leader_id
        else:
            is_leader = stamp.term > state.current_term and stamp.sender in self._other_voters()
        return stamp.silence_us if is_leader else None

    def _excuses_silence(self, leader_silence_us: int | None) -> bool:
        """A process that was stopped finds its timer expired and the leader's frames unread. If the
        kernel heard the leader within the timeout, wait once more, but only once per silence:
        what the kernel holds says that the leader's machine lives, not that it makes progress.
        """
        state = self._state
        if (
            state.role is not Role.FOLLOWER
            or not state.leader_id
            or leader_silence_us is None
            or leader_silence_us >= state.settings.election_timeout_min_us
            or state.silence_excused
        ):
            return False
        state.silence_excused = True
        state.leader_heard_us = max(state.leader_heard_us, state.now_us - leader_silence_us)
        state.reset_election_timer()
        state.note("election_deferred", leader_silence_us=leader_silence_us)
        return True

    def _ask_for_pre_votes(self) -> None:
        state = self._state
        state.role = Role.PRE_CANDIDATE
        state.reset_election_timer()
        self._open_ballot()
        state.note("pre_vote_started", next_term=state.current_term + 1)
        self._granted.add(state.member_id)
        if state.has_quorum(self._granted):
            self._stand(transfer=False)
            return
        request = PreVote(
            state.current_term + 1, self._request_id, state.log.last_index, state.log.last_term
        )
        for voter in self._other_voters():
            state.send(voter, request)

    def _stand(self, *, transfer: bool) -> None:
        state = self._state
        state.fruitless_elections += 1
        state.save_vote(state.current_term + 1, state.member_id)
        state.role = Role.CANDIDATE
        state.leader_id = 0
        state.reset_election_timer()
        self._open_ballot()
        # The own vote counts once it is on disk, like everybody's.
        self._own_vote_seq = state.vote_seq
        state.note("election_started", transfer=int(transfer))
        request = RequestVote(
            state.current_term,
            self._request_id,
            state.log.last_index,
            state.log.last_term,
            transfer,
        )
        for voter in self._other_voters():
            state.send(voter, request)

    def _open_ballot(self) -> None:
        self._request_id = self._state.next_request_id()
        self._granted = set()
        self._refused = set()

    def _other_voters(self) -> list[int]:
        configuration = self._state.configuration
        if configuration is None:
            return []
        voters = {*configuration.voters, *configuration.voters_outgoing}
        return sorted(voters - {self._state.member_id})

    def vote_persisted(self, seq: int) -> None:
        state = self._state
        if state.leader_id == 0 and seq >= state.vote_seq:
            # Only now can the question, or the vote, leave: time for an answer runs from here.
            state.reset_election_timer()
        if state.role is Role.CANDIDATE and seq >= self._own_vote_seq:
            self._granted.add(state.member_id)
            self._count()

    def timeout_now(self, _sender: int, _message: TimeoutNow) -> None:
        """The leader hands over: no pre-vote, and voters need not wait for its silence."""
        if self._state.role is Role.FOLLOWER and self._state.can_stand:
            self._stand(transfer=True)

    # --- counting

    def pre_vote_reply(self, sender: int, message: PreVoteReply) -> None:
        if self._state.role is Role.PRE_CANDIDATE and message.request_id == self._request_id:
            (self._granted if message.granted else self._refused).add(sender)
            self._count()

    def vote_reply(self, sender: int, message: VoteReply) -> None:
        if self._state.role is Role.CANDIDATE and message.request_id == self._request_id:
            (self._granted if message.granted else self._refused).add(sender)
            self._count()

    def _count(self) -> None:
        state = self._state
        if state.has_quorum(self._granted):
            if state.role is Role.PRE_CANDIDATE:
                self._stand(transfer=False)
            else:
                self._on_won()
        elif (
            state.role is Role.PRE_CANDIDATE
            and state.configuration is not None
            and quorum.is_lost(state.configuration, self._refused)
        ):
            state.role = state.resting_role()

    # --- voting

    def pre_vote(self, sender: int, message: PreVote) -> None:
        """Answering a pre-vote changes nothing here: no term, no vote, no timer.

        But a learner notes that somebody wants its vote who can't have it, see `can_stand_in`.
        """
        state = self._state
        is_up_to_date = state.is_up_to_date(message.last_term, message.last_index)
        may_vote = not state.leader_is_alive()
        granted = message.term > state.current_term and may_vote and is_up_to_date
        if may_vote and not is_up_to_date:
            self._sought_us = state.now_us
        term = message.term if granted else state.current_term
        state.send(sender, PreVoteReply(term, message.request_id, granted))

    def refuse_vote(self, sender: int, message: RequestVote) -> None:
        """While a leader lives its term must not end by somebody else's timer (§4.2.3)."""
        state = self._state
        state.send(sender, VoteReply(state.current_term, message.request_id, granted=False))

    def request_vote(self, sender: int, message: RequestVote) -> None:
        """Figure 2, RequestVote; the term is the current one by now. That it was known before does
        not free a vote that is withheld."""
        state = self._state
        is_free = state.voted_for == 0 and (message.transfer or not state.leader_is_alive())
        granted = (is_free or state.voted_for == sender) and state.is_up_to_date(
            message.last_term, message.last_index
        )
        if granted:
            if state.voted_for == 0:
                state.save_vote(message.term, sender)
            if state.role is Role.PRE_CANDIDATE:
                state.role = state.resting_role()
            state.reset_election_timer()
        state.send(sender, VoteReply(state.current_term, message.request_id, granted))
