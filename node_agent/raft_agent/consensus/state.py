"""The state that all parts of the core share: Figure 2's, and what one step gathers.

Only `node.Node` and the handlers in this package touch it. It has no behaviour of its own beyond
the few moves that every handler needs: send, save the vote, append, change role.
"""

from __future__ import annotations

from collections import deque

from raft_agent.consensus import quorum
from raft_agent.consensus.batch import Batch, BatchKind
from raft_agent.consensus.invariants import require
from raft_agent.consensus.leadership import Leadership
from raft_agent.consensus.log import RaftLog
from raft_agent.consensus.membership import Membership, is_voter
from raft_agent.consensus.types import (
    AppendLog,
    Configuration,
    ConfigurationChanged,
    Effect,
    LogImage,
    Message,
    Note,
    ReadIndexReply,
    RefusalReason,
    Refused,
    Role,
    RoleChanged,
    SaveVote,
    Send,
    Settings,
    SnapshotMeta,
    TransferDone,
    Vote,
)

_MASK_64 = (1 << 64) - 1
_MAX_DOUBLINGS = 4


class RandomBits:
    """SplitMix64 (Steele, Lea, Flood 2014): the same seed gives the same numbers everywhere."""

    __slots__ = ("_state",)

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK_64

    def u64(self) -> int:
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK_64
        z = self._state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK_64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK_64
        return z ^ (z >> 31)

    def between(self, low: int, high: int) -> int:
        """A number of low … high, both included."""
        return low + self.u64() % (high - low + 1)


class RaftState:
    """One node. Times in microseconds of the host's clock."""

    def __init__(
        self,
        *,
        member_id: int,
        vote: Vote,
        log: LogImage,
        snapshot: SnapshotMeta | None,
        settings: Settings,
        seed: int,
        now_us: int,
        word_us: int = 0,
    ) -> None:
        self.member_id = member_id
        self.settings = settings
        self.random = RandomBits(seed)
        self.now_us = now_us
        self.effects: list[Effect] = []
        self.failed = ""
        # The entry behind which this node's state was found to be another than a quorum's.
        self.diverged_index = 0

        self.log = RaftLog(log)
        self.membership = Membership(log.configurations)
        self.current_term = max(vote.term, self.log.last_term)
        self.voted_for = vote.voted_for if vote.term == self.current_term else 0
        self.vote_floor = (vote.floor_term, vote.floor_index)
        if (self.log.last_term, self.log.last_index) >= self.vote_floor:
            self.vote_floor = (0, 0)

        self.role = self.resting_role()
        self.leader_id = 0
        self.leadership: Leadership | None = None
        # The newest durable one; `installing`: a leader's is about to take the place of the log.
        self.snapshot = snapshot
        self.installing = False
        self.commit_index = snapshot.index if snapshot else 0
        self.applied_index = self.commit_index
        self.applying_to = 0
        self.read_for_apply = 0

        self.election_due_us = 0
        # §4.2.3 of the thesis: a server that restarted may have promised a leader not to vote
        # for a minimum election timeout, and has forgotten; so it begins as if it had just heard.
        self.leader_heard_us = now_us
        self.leader_heard_us += max(word_us - settings.election_timeout_min_us, 0)
        # All that had been acknowledged at `current_as_of_us` is applied (0: at no moment that is
        # known); at `_awaited_us` nothing behind `_awaited_index` had been (0: nothing awaited).
        self.began_us = now_us
        self.current_as_of_us = 0
        self._awaited_us = 0
        self._awaited_index = 0
        self.silence_excused = False
        # Elections that this node stood for since it last knew a leader.
        self.fruitless_elections = 0

        self.log_seq = 0
        self.persisted_index = self.log.last_index
        self._pending_log: deque[tuple[int, int]] = deque()
        self._write_progress_us = now_us
        self.shuns_leading_until_us = 0
        self.vote_seq = 0
        self.vote_persisted_seq = 0
        self._vote_dirty = False
        self._request_id = self.random.u64() >> 2
        self._transfer_tag: int | None = None
        self.told_removed = False
        # The entry that begins a new generation, while it is not on disk yet; 0: none is.
        self.recovering = 0
        # A generation that another member began without this node, which takes no part since it
        # knows; and the last of which it was told so in vain.
        self.superseded = 0
        self.told_of_generation = 0
        self.leaderless_since_us = now_us
        self._told = (self.role, self.current_term, self.leader_id)
        self.reset_election_timer()

    # --- what a step begins and ends with

    def begin(self, now_us: int) -> None:
        self.now_us = max(now_us, self.now_us)
        self.effects = []

    def finish(self) -> list[Effect]:
        """Close the step: one vote to save at most, and one word about role, term and leader."""
        if self._vote_dirty:
            self._vote_dirty = False
            self.effects.insert(0, SaveVote(self.vote_seq, self.current_term, self.voted_for))
        if (self.role, self.current_term, self.leader_id) != self._told:
            if self._told[2] and not self.leader_id:
                self.leaderless_since_us = self.now_us
            self._told = (self.role, self.current_term, self.leader_id)
            self.effects.append(RoleChanged(*self._told))
        if self._transfer_tag is not None and self.leader_id == self.member_id:
            self.give_up_transfer(RefusalReason.TIMED_OUT)
        elif self._transfer_tag is not None and self.leader_id:
            self.effects.append(TransferDone(self._transfer_tag, self.leader_id))
            self._transfer_tag = None
        return self.effects

    def give_up_transfer(self, reason: RefusalReason) -> None:
        """Answer whoever waits for a hand-over of which no leader has come."""
        if self._transfer_tag is not None:
            self.refuse(self._transfer_tag, reason)
            self._transfer_tag = None

    # --- moves

    def next_request_id(self) -> int:
        self._request_id += 1
        return self._request_id

    def send(self, to: int, message: Message, after_log: int = 0) -> None:
        """A message never leaves before the term and vote it was written under are on disk."""
        after_vote = self.vote_seq if self.vote_seq > self.vote_persisted_seq else 0
        self.effects.append(Send(to, message, after_log, after_vote))

    def note(self, kind: str, **facts: int | str) -> None:
        self.effects.append(Note(kind, facts))

    def refuse(self, tag: int, reason: RefusalReason) -> None:
        leader = self.leader_id if self.leader_id != self.member_id else 0
        if reason is RefusalReason.NO_LEADER and self.was_removed:
            reason = RefusalReason.REMOVED
        self.effects.append(Refused(tag, reason, leader))

    def refuse_recovery(self, tag: int, reason: RefusalReason, best: int) -> None:
        self.effects.append(Refused(tag, reason, best))

    def refuse_not_leading(self, tag: int) -> None:
        known = RefusalReason.NOT_LEADER if self.leader_id else RefusalReason.NO_LEADER
        self.refuse(tag, known)

    def save_vote(self, term: int, voted_for: int) -> None:
        require(
            term > self.current_term or (term == self.current_term and self.voted_for == 0),
            "a server votes once in a term, and terms never fall",
            term=term,
            current_term=self.current_term,
            voted_for=self.voted_for,
        )
        self.current_term = term
        self.voted_for = voted_for
        if not self._vote_dirty:
            self._vote_dirty = True
            self.vote_seq += 1

    def append(self, batches: list[Batch], truncate_from: int = 0) -> int:
        """Take `batches` into the log, and have them written; the number of that write."""
        if truncate_from:
            self._truncate(truncate_from)
        for batch in batches:
            self.log.append(batch)
            if batch.kind == BatchKind.CONFIGURATION:
                self.membership.append(batch)
                self.configuration_changed()
        self.log_seq += 1
        if not self._pending_log:
            self._write_progress_us = self.now_us
        self._pending_log.append((self.log_seq, self.log.last_index))
        self.effects.append(AppendLog(self.log_seq, truncate_from, tuple(batches)))
        return self.log_seq

    def _truncate(self, from_index: int) -> None:
        require(
            from_index > self.commit_index,
            "a committed entry is never cut",
            from_index=from_index,
            commit_index=self.commit_index,
        )
        self.note("log_truncated", from_index=from_index, last_index=self.log.last_index)
        self.log.truncate(from_index)
        self.persisted_index = min(self.persisted_index, from_index - 1)
        # What is still being written counts only up to the cut: it will be cut on disk as well.
        self._pending_log = deque(
            (seq, min(last_index, from_index - 1)) for seq, last_index in self._pending_log
        )
        if self.membership.truncate(from_index):
            self.configuration_changed()

    def log_was_reset(self, index: int) -> None:
        """A snapshot up to `index` has taken the place of the whole log."""
        require(not self._pending_log, "nothing is being written when the log is forgotten")
        self.persisted_index = index
        if (self.log.base_term, index) >= self.vote_floor:
            self.vote_floor = (0, 0)
        if self.role is Role.FRESH:
            self.role = self.resting_role()
            self.reset_election_timer()

    def log_persisted(self, seq: int) -> None:
        if self.disk_stalls:
            # It may hang again at once: let others lead for a while.
            self.shuns_leading_until_us = self.now_us + self.settings.disk_stall_us
        self._write_progress_us = self.now_us
        pending = self._pending_log
        while pending and pending[0][0] <= seq:
            self.persisted_index = pending.popleft()[1]
        if self.vote_floor != (0, 0):
            reached = (self.log.term_at(self.persisted_index), self.persisted_index)
            if reached >= self.vote_floor:
                self.note("log_refilled", index=self.persisted_index)
                self.vote_floor = (0, 0)

    def write_that_holds(self, index: int) -> int:
        """The number of the write after which `index` is on disk; 0 when it is already."""
        if index <= self.persisted_index:
            return 0
        return next(seq for seq, last_index in self._pending_log if last_index >= index)

    def current_at(self, moment_us: int, index: int) -> None:
        """Nothing behind `index` had been acknowledged at this moment. What is not applied yet is
        awaited: under steady load the newest never is there.
        """
        if self.applied_index >= index:
            self.current_as_of_us = max(self.current_as_of_us, moment_us)
        elif self._awaited_index in (0, index):
            self._awaited_index = index
            self._awaited_us = max(self._awaited_us, moment_us)

    def see_what_is_applied(self) -> None:
        """What was awaited may be there by now."""
        if self._awaited_index and self.applied_index >= self._awaited_index:
            self.current_as_of_us = max(self.current_as_of_us, self._awaited_us)
            self._awaited_index = self._awaited_us = 0

    def become_follower(self, term: int, leader_id: int) -> None:
        """Follow `leader_id` (0: nobody yet) in `term`. Drops everything that only a leader has."""
        if term > self.current_term:
            self.save_vote(term, 0)
        leadership, self.leadership = self.leadership, None
        if leadership is not None:
            self.note("stepped_down", leader=leader_id)
        if self.role is not Role.FRESH:
            self.role = self.resting_role()
        self.leader_id = leader_id
        self.reset_election_timer()
        if leadership is not None:
            self._release(leadership)

    def _release(self, leadership: Leadership) -> None:
        for tag in leadership.reads.local_tags():
            self.refuse(tag, RefusalReason.NOT_LEADER)
        for peer, request_id in leadership.reads.remote_requests():
            self.send(peer, ReadIndexReply(self.current_term, request_id, 0))
        if leadership.transfer is not None:
            self._transfer_tag = leadership.transfer.tag
        if leadership.change_tag is not None:
            self.refuse(leadership.change_tag, RefusalReason.LEADERSHIP_LOST)

    def reset_election_timer(self) -> None:
        """Draw a timeout anew. Votes that take longer to write than a timeout lasts would never
        come together, so from the third election in vain on each one doubles it."""
        timeout_us = self.random.between(
            self.settings.election_timeout_min_us, self.settings.election_timeout_max_us
        )
        if self.now_us < self.shuns_leading_until_us:
            timeout_us += 2 * self.settings.election_timeout_max_us
        doublings = min(max(self.fruitless_elections - 2, 0), _MAX_DOUBLINGS)
        # To stand is to vote: not before the word that was given in a former life is kept.
        free_us = self.leader_heard_us + self.settings.election_timeout_min_us
        self.election_due_us = max(self.now_us + (timeout_us << doublings), free_us)

    def configuration_changed(self) -> None:
        if self.configuration is not None:
            self.effects.append(ConfigurationChanged(self.configuration, self.membership.index))
        if self.leadership is None and self.role in (Role.FOLLOWER, Role.LEARNER):
            self.role = self.resting_role()

    # --- questions

    @property
    def configuration(self) -> Configuration | None:
        return self.membership.current

    @property
    def can_stand(self) -> bool:
        """Whether this node may be a candidate: a voter, and fit to lead."""
        return self.membership.may_lead(self.member_id, self.commit_index) and self.is_fit_to_lead

    @property
    def can_stand_in(self) -> bool:
        """Whether this node may be a candidate although it has no vote: a learner whose log is
        further than that of somebody who needs its vote.

        The other one knows it as a voter, by an entry that never reached this log, and may lack a
        quorum without it. What a dead leader left here alone is then in nobody's way only if this
        node brings it in. It is elected by the voters of its own log, of whom it is none, and hands
        over as soon as it has committed, like a leader that is no voter any more (§4.2.2 of the
        thesis).
        """
        configuration = self.configuration
        return (
            configuration is not None
            and self.member_id in configuration.learners
            and self.is_fit_to_lead
        )

    @property
    def is_fit_to_lead(self) -> bool:
        """Whether the disk works, the log is not about to be forgotten, nor its end damaged, and
        the state is the others'."""
        return (
            not self.told_removed
            and not self.recovering
            and not self.superseded
            and self.vote_floor == (0, 0)
            and not self.installing
            and not self.disk_stalls
            and not self.diverged_index
        )

    def has_lease(self, now_us: int) -> bool:
        """Whether this node leads and no other can have been elected by `now_us`."""
        leadership, configuration = self.leadership, self.configuration
        return (
            leadership is not None
            and configuration is not None
            and leadership.lease.holds(configuration, self.member_id, now_us)
        )

    @property
    def disk_stalls(self) -> bool:
        """Whether a log write hangs: nothing has become durable for too long."""
        stalled_us = self.now_us - self._write_progress_us
        return bool(self._pending_log) and stalled_us > self.settings.disk_stall_us

    @property
    def stalled_index(self) -> int:
        """The end of the write that hangs; only while `disk_stalls`."""
        return self._pending_log[0][1]

    @property
    def was_removed(self) -> bool:
        """Whether it is known to be committed that this node is no member any more."""
        if self.told_removed or self.superseded:
            return True
        return self.membership.is_removed(self.member_id, self.commit_index)

    def has_quorum(self, agreeing: set[int]) -> bool:
        configuration = self.membership.current
        return configuration is not None and quorum.has_quorum(configuration, agreeing)

    def leader_is_alive(self) -> bool:
        """Whether votes are refused because a leader is, or may be, at work (§4.2.3).

        Whoever was told so by a heartbeat reply counts on it for its lease, so what else this node
        has heard since changes nothing: not a later term, not that the leader is gone.
        """
        heard_ago_us = self.now_us - self.leader_heard_us
        return self.role is Role.LEADER or heard_ago_us < self.settings.election_timeout_min_us

    def is_up_to_date(self, last_term: int, last_index: int) -> bool:
        """§5.4.1: whether a log that ends so is at least as complete as this one; a damaged end
        counts as if it were still there, because it may have been acknowledged.
        """
        own = max((self.log.last_term, self.log.last_index), self.vote_floor)
        return (last_term, last_index) >= own

    def resting_role(self) -> Role:
        if self.membership.current is None:
            return Role.FRESH
        if is_voter(self.membership.current, self.member_id):
            return Role.FOLLOWER
        return Role.LEARNER
