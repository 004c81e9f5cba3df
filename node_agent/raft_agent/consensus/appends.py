"""The follower's side of replication: Figure 2, AppendEntries, "Receiver implementation"."""

from __future__ import annotations

from raft_agent.consensus.batch import Batch, BatchKind
from raft_agent.consensus.freshness import Freshness
from raft_agent.consensus.invariants import require
from raft_agent.consensus.membership import read_configuration
from raft_agent.consensus.snapshots import SnapshotReceiver
from raft_agent.consensus.state import RaftState
from raft_agent.consensus.types import (
    AppendEntries,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    Role,
    SnapshotChunk,
)


class Appends:
    """Takes what the leader sends into the log and says so once it is on disk."""

    def __init__(self, state: RaftState, receiver: SnapshotReceiver, freshness: Freshness) -> None:
        self._state = state
        self._receiver = receiver
        self._freshness = freshness

    def append_entries(self, sender: int, message: AppendEntries) -> None:
        state = self._state
        self._heard_leader(sender)
        if state.installing:
            return  # what is appended now would be forgotten with the log
        if not state.log.holds(message.prev_index, message.prev_term):
            self._refuse(sender, message)
            return
        if not _is_sound(message):
            state.note("malformed_append", sender=sender, prev_index=message.prev_index)
            return
        last_new = message.batches[-1].last_index if message.batches else message.prev_index
        new, truncate_from = self._missing(message.batches)
        if new:
            state.append(new, truncate_from)
        reply = AppendReply(
            state.current_term, message.request_id, message.session, True, last_new, 0, 0
        )
        state.send(sender, reply, after_log=state.write_that_holds(last_new))
        self.committed(min(message.commit_index, last_new))

    def _missing(self, batches: tuple[Batch, ...]) -> tuple[list[Batch], int]:
        """The batches that are not in the log yet, and where it must be cut first (0: nowhere).

        An old request may hold less than the log does: what agrees is never cut (§5.3).
        """
        log = self._state.log
        for position, batch in enumerate(batches):
            if log.holds(batch.last_index, batch.term):
                continue
            cut = batch.first_index if batch.first_index <= log.last_index else 0
            return list(batches[position:]), cut
        return [], 0

    def _refuse(self, sender: int, message: AppendEntries) -> None:
        state = self._state
        hint_index = max(
            state.log.last_at_most(message.prev_index, message.prev_term), state.commit_index
        )
        hint_term = state.log.term_at(hint_index)
        state.send(
            sender,
            AppendReply(
                state.current_term,
                message.request_id,
                message.session,
                False,
                0,
                hint_index,
                hint_term,
            ),
        )

    def heartbeat(self, sender: int, message: Heartbeat) -> None:
        state = self._state
        self._heard_leader(sender)
        if message.request_id:
            reply = HeartbeatReply(
                state.current_term,
                message.request_id,
                message.session,
                state.settings.election_timeout_min_us,
                state.now_us,
            )
            state.send(sender, reply)
        self.committed(min(message.commit_index, state.log.last_index))
        self._freshness.heard(message)

    def snapshot_chunk(self, sender: int, message: SnapshotChunk) -> None:
        self._heard_leader(sender)
        self._receiver.chunk(sender, message)

    def refuse_stale(self, sender: int, message: AppendEntries | Heartbeat | SnapshotChunk) -> None:
        """A leader of an older term learns of ours, or it would never step down: it may be kept
        from hearing of the newer one by the votes that are refused while it lives.
        """
        state = self._state
        reply = HeartbeatReply(state.current_term, message.request_id, message.session, 0)
        state.send(sender, reply)

    def _heard_leader(self, sender: int) -> None:
        state = self._state
        require(
            state.role is not Role.LEADER,
            "a term has one leader (§5.2)",
            term=state.current_term,
            other=f"{sender:016x}",
        )
        if state.role in (Role.CANDIDATE, Role.PRE_CANDIDATE):
            state.become_follower(state.current_term, sender)
        if state.leader_id != sender:
            require(state.leader_id == 0, "a term has one leader (§5.2)", term=state.current_term)
            state.leader_id = sender
            state.note("leader_found", leader=sender)
        state.fruitless_elections = 0
        state.leader_heard_us = max(state.leader_heard_us, state.now_us)
        state.silence_excused = False
        state.reset_election_timer()

    def committed(self, index: int) -> None:
        state = self._state
        state.commit_index = max(state.commit_index, index)


def _is_sound(message: AppendEntries) -> bool:
    """Whether the batches follow prev_index without a gap, in rising terms up to the leader's, and
    their configurations can be read."""
    index, term = message.prev_index, message.prev_term
    for batch in message.batches:
        if batch.first_index != index + 1 or not term <= batch.term <= message.term:
            return False
        if batch.kind == BatchKind.CONFIGURATION and read_configuration(batch) is None:
            return False
        index, term = batch.last_index, batch.term
    return True
