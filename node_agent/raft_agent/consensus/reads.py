"""Linearizable reads without a log entry: ReadIndex (§6.4 of the thesis).

The leader notes its commit index, makes sure by a round of heartbeats that it still leads, and the
read may be answered by whoever has applied that index. Followers ask the leader. For a read that is
content with the leader's lease the round is left out while the lease holds (§6.4.1).
"""

from __future__ import annotations

from raft_agent.consensus.freshness import Freshness
from raft_agent.consensus.leadership import Leadership, ReadRequest
from raft_agent.consensus.replication import Replication
from raft_agent.consensus.state import RaftState
from raft_agent.consensus.types import (
    HeartbeatReply,
    Read,
    ReadIndex,
    ReadIndexReply,
    ReadReady,
    RefusalReason,
)


class Reads:
    """Read indexes for this node and, while it leads, for its followers."""

    def __init__(self, state: RaftState, replication: Replication, freshness: Freshness) -> None:
        self._state = state
        self._replication = replication
        self._freshness = freshness
        # As a follower: one question to the leader at a time; later reads wait for the next one.
        self._asked_request_id = 0
        self._asked_at_us = 0
        self._asked_term = 0
        self._asked_lease = False
        self._asked: list[int] = []
        self._waiting: list[Read] = []

    def read(self, event: Read) -> None:
        state = self._state
        if state.leadership is not None:
            state.leadership.reads.waiting.append(ReadRequest(0, event.tag, event.lease))
        elif state.leader_id:
            self._waiting.append(event)
        else:
            state.refuse(event.tag, RefusalReason.NO_LEADER)

    # --- leader

    def read_index(self, sender: int, message: ReadIndex) -> None:
        state = self._state
        if state.leadership is None:
            state.send(sender, ReadIndexReply(state.current_term, message.request_id, 0))
        else:
            state.leadership.reads.waiting.append(
                ReadRequest(sender, message.request_id, message.lease)
            )

    def refuse_stale(self, sender: int, message: ReadIndex) -> None:
        """Whoever asks in an older term learns of ours at once, and can ask its new leader."""
        state = self._state
        state.send(sender, ReadIndexReply(state.current_term, message.request_id, 0))

    def heartbeat_reply(self, sender: int, message: HeartbeatReply) -> None:
        state = self._state
        leadership = state.leadership
        progress = leadership.progress.get(sender) if leadership else None
        if leadership is None or progress is None or message.session != progress.session:
            return
        progress.last_contact_us = state.now_us
        self._freshness.reply(leadership, sender, message)
        leadership.lease.promised(
            sender, message.request_id, message.withheld_us, state.settings.clock_drift_ppm
        )
        reads = leadership.reads
        if reads.round and message.request_id >= reads.round_request_id:
            reads.acks.add(sender)

    def serve(self, leadership: Leadership) -> None:
        """Close the round that a quorum has confirmed, and open the next one. Called when there is
        one, or reads that wait for one."""
        state = self._state
        reads = leadership.reads
        self._answer_by_lease(leadership)
        while True:
            if reads.round:
                if not state.has_quorum(reads.acks):
                    return
                done, reads.round = reads.round, []
                for read in done:
                    self._answer(read, reads.index)
            if not reads.waiting or state.log.term_at(state.commit_index) != state.current_term:
                return
            reads.round, reads.waiting = reads.waiting, []
            reads.index = state.commit_index
            reads.round_request_id = state.next_request_id()
            reads.acks = {state.member_id}
            self._replication.send_heartbeats(leadership, reads.round_request_id)

    def _answer_by_lease(self, leadership: Leadership) -> None:
        """Those who are content with the lease need no round while it holds."""
        state = self._state
        reads = leadership.reads
        if (
            not any(read.lease for read in reads.waiting)
            or state.commit_index < leadership.first_index
            or not state.has_lease(state.now_us)
        ):
            return
        waiting, reads.waiting = reads.waiting, []
        for read in waiting:
            if read.lease:
                self._answer(read, state.commit_index)
            else:
                reads.waiting.append(read)

    def _answer(self, read: ReadRequest, index: int) -> None:
        state = self._state
        if read.peer == 0:
            state.effects.append(ReadReady(read.number, index))
        else:
            state.send(read.peer, ReadIndexReply(state.current_term, read.number, index))

    # --- follower

    def ask(self) -> None:
        """Pass waiting reads on to the leader, or give them up when there is none any more."""
        if not self._asked and not self._waiting:
            return
        state = self._state
        if self._asked and (state.leader_id == 0 or self._asked_term != state.current_term):
            self._give_up(self._asked)
            self._asked = []
        if state.leader_id == 0 or state.leadership is not None:
            self._give_up([read.tag for read in self._waiting])
            self._waiting = []
        elif self._waiting and not self._asked:
            # A read that wants the lease takes a round as well; not the other way round.
            self._asked_lease = all(read.lease for read in self._waiting)
            self._asked = [read.tag for read in self._waiting]
            self._waiting = []
            self._send_question()

    def heard_leader(self) -> None:
        """Ask again, under a fresh id, when an answer is overdue: it may have been lost."""
        overdue_us = self._state.now_us - self._asked_at_us
        if self._asked and overdue_us > self._state.settings.election_timeout_min_us:
            self._send_question()

    def _send_question(self) -> None:
        state = self._state
        self._asked_request_id = state.next_request_id()
        self._asked_at_us = state.now_us
        self._asked_term = state.current_term
        state.send(
            state.leader_id,
            ReadIndex(state.current_term, self._asked_request_id, self._asked_lease),
        )

    def read_index_reply(self, _sender: int, message: ReadIndexReply) -> None:
        if not self._asked or message.request_id != self._asked_request_id:
            return
        asked, self._asked = self._asked, []
        if message.index == 0:
            self._give_up(asked)
            return
        for tag in asked:
            self._state.effects.append(ReadReady(tag, message.index))

    def _give_up(self, tags: list[int]) -> None:
        for tag in tags:
            self._state.refuse(tag, RefusalReason.NO_LEADER)
