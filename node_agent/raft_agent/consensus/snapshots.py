"""Snapshots (§7 of the paper): what a leader sends to whom it can't bring up with its log, and what
a follower does with it.

A snapshot goes over in chunks, one at a time. An offer without data comes first, and again whenever
an answer is overdue; the answer says how much of this snapshot is there already, so a transmission
goes on where it was after a reconnect, and under another leader that offers the same file.
"""

from __future__ import annotations

import msgspec

from raft_agent.consensus.generations import generation_of
from raft_agent.consensus.invariants import require
from raft_agent.consensus.progress import Progress, Transmission
from raft_agent.consensus.state import RaftState
from raft_agent.consensus.types import (
    CompactLog,
    FoundCluster,
    InstallSnapshot,
    ReadSnapshot,
    Role,
    SnapshotChunk,
    SnapshotInstalled,
    SnapshotMeta,
    SnapshotRead,
    SnapshotReply,
    SnapshotTaken,
    SnapshotWritten,
    WriteSnapshot,
)

# A chunk waits for the peer's disk and for a slow link; an offer too many only costs a few bytes.
_PATIENCE_TIMEOUTS = 4
# To take another one in place of one that was refused needs a comparison of states, and may be
# slow; and it may be the peer that is at fault, whom no other leader would please either.
_SPOILT_TIMEOUTS = 20


class SnapshotSender:
    """The leader's side."""

    def __init__(self, state: RaftState) -> None:
        self._state = state

    def begin(self, peer: int, progress: Progress, token: int = 0) -> None:
        """Send the newest snapshot. `token`: a fresh peer's."""
        state = self._state
        snapshot = state.snapshot
        wanted = generation_of(state.configuration).id
        if snapshot is None or generation_of(snapshot.configuration).id != wanted:
            # An older generation's would bring its members back, until the log is through.
            require(bool(wanted), "a log that was compacted has a snapshot")
            state.note("snapshot_wanted", target=peer)
            return
        state.note("snapshot_offered", target=peer, index=snapshot.index)
        progress.send_snapshot(Transmission(snapshot, token, state.now_us))
        self._send(peer, progress, b"")

    def tick(self, peer: int, progress: Progress) -> None:
        """Offer it again when nothing was heard for long."""
        patience_us = _PATIENCE_TIMEOUTS * self._state.settings.election_timeout_max_us
        if progress.is_overdue(self._state.now_us, patience_us):
            self._send(peer, progress, b"")

    def _send(self, peer: int, progress: Progress, data: bytes) -> None:
        state = self._state
        transmission = progress.transmission
        if transmission is None:
            return
        snapshot = transmission.snapshot
        transmission.request_id = state.next_request_id()
        transmission.read_offset = -1
        transmission.sent_us = state.now_us
        chunk = SnapshotChunk(
            state.current_term,
            transmission.request_id,
            progress.session,
            transmission.token,
            snapshot.index,
            snapshot.term,
            snapshot.size_bytes,
            snapshot.checksum,
            transmission.offset if data else 0,
            data,
        )
        state.send(peer, chunk)

    def _was_refused(self, snapshot: SnapshotMeta) -> None:
        leadership = self._state.leadership
        if leadership is None:
            return
        if leadership.refused_snapshot != snapshot:
            leadership.refused_snapshot = snapshot
            leadership.refused_us = self._state.now_us
        patience_us = _SPOILT_TIMEOUTS * self._state.settings.election_timeout_max_us
        if self._state.now_us - leadership.refused_us >= patience_us:
            leadership.spoilt_snapshot = snapshot

    def reply(self, sender: int, progress: Progress, message: SnapshotReply) -> bool:
        """Whether the peer is through with it."""
        state = self._state
        transmission = progress.transmission
        if transmission is None or message.index != transmission.snapshot.index:
            return False
        if message.done:
            state.note("snapshot_sent", target=sender, index=message.index)
            return True
        if message.request_id != transmission.request_id or transmission.read_offset >= 0:
            return False
        transmission.sent_us = state.now_us
        if message.offset < transmission.offset:
            # The peer had more and has given it up: what it got did not match its checksum.
            state.note("snapshot_refused", target=sender, index=message.index)
            self._was_refused(transmission.snapshot)
            self.begin(sender, progress, transmission.token)
            return False
        transmission.offset = message.offset
        if message.offset < transmission.snapshot.size_bytes:
            transmission.read_offset = message.offset
            chunk_bytes = state.settings.snapshot_chunk_bytes
            read = ReadSnapshot(sender, message.index, message.offset, chunk_bytes)
            state.effects.append(read)
        return False

    def read(self, event: SnapshotRead) -> None:
        leadership = self._state.leadership
        progress = leadership.progress.get(event.peer) if leadership else None
        transmission = progress.transmission if progress is not None else None
        if progress is None or transmission is None:
            return
        expected = (transmission.snapshot.index, transmission.read_offset)
        if (event.index, event.offset) != expected:
            return
        if event.data:
            self._send(event.peer, progress, event.data)
        elif self._state.snapshot != transmission.snapshot:
            # That file is gone: there is a newer one.
            self.begin(event.peer, progress, transmission.token)
        # Else it can't be read; another offer asks for it after a while.


class _Incoming(msgspec.Struct):
    """A snapshot that comes in. `sender`, `request_id`, `session` and `term` are of the chunk that
    was taken last: whom to answer when it is done."""

    index: int
    index_term: int
    size_bytes: int
    checksum: int
    offset: int = 0
    is_writing: bool = False
    is_installing: bool = False
    sender: int = 0
    request_id: int = 0
    session: int = 0
    term: int = 0

    def is_of(self, message: SnapshotChunk) -> bool:
        return (self.index, self.index_term, self.size_bytes, self.checksum) == (
            message.index,
            message.index_term,
            message.size_bytes,
            message.checksum,
        )


class SnapshotReceiver:
    """The follower's side, and what every node does with its own snapshots."""

    def __init__(self, state: RaftState) -> None:
        self._state = state
        self._incoming: _Incoming | None = None
        self._compact_to = 0

    # --- own ones

    def taken(self, event: SnapshotTaken) -> None:
        """The log may lose what an older snapshot stands for as well."""
        state = self._state
        require(
            event.snapshot.index <= state.applied_index,
            "a snapshot holds what was applied",
            snapshot=event.snapshot.index,
            applied=state.applied_index,
        )
        # One of the same entry takes the place of a file that has gone bad.
        if state.installing or (state.snapshot and event.snapshot.index < state.snapshot.index):
            return
        state.snapshot = event.snapshot
        wanted = max(min(event.compact_to, self._needed_by_others()), self._compact_to)
        self._compact_to = event.compact_to
        upto_index = min(wanted, state.persisted_index)
        if upto_index > state.log.base_index:
            state.log.compact(upto_index)
            state.membership.compact(upto_index)
            state.effects.append(CompactLog(upto_index))

    def _needed_by_others(self) -> int:
        """Up to where those who are in contact have the log. They are waited for until the next
        snapshot: who is a little behind, or just gets one, should not need another one.
        """
        state = self._state
        if state.leadership is None:
            return state.log.last_index
        patience_us = _PATIENCE_TIMEOUTS * state.settings.election_timeout_max_us
        needed = state.log.last_index
        for progress in state.leadership.progress.values():
            if state.now_us - progress.last_contact_us > patience_us:
                continue
            if progress.transmission is not None:
                needed = min(needed, progress.transmission.snapshot.index)
            elif progress.match_index:
                needed = min(needed, progress.match_index)
        return needed

    # --- those of a leader

    def chunk(self, sender: int, message: SnapshotChunk) -> None:
        """Take in an offer or a piece; the caller has made sure that `sender` leads."""
        state = self._state
        incoming = self._incoming
        if not state.installing and self._has_all(message.index, message.index_term):
            self._incoming = None
            self._reply_done(sender, message)
            return
        if incoming is None or not incoming.is_of(message):
            if state.installing or (incoming is not None and incoming.is_writing):
                return  # the leader offers it again
            incoming = self._incoming = _Incoming(
                message.index, message.index_term, message.size_bytes, message.checksum
            )
            state.note("snapshot_arrives", sender=sender, index=message.index)
        incoming.sender, incoming.request_id = sender, message.request_id
        incoming.session, incoming.term = message.session, state.current_term
        if incoming.is_writing:
            return  # answered when that is done
        fits = message.offset == incoming.offset and message.data
        if fits and incoming.offset + len(message.data) <= incoming.size_bytes:
            incoming.is_writing = True
            state.effects.append(
                WriteSnapshot(
                    message.index,
                    message.index_term,
                    message.size_bytes,
                    message.checksum,
                    message.offset,
                    message.data,
                )
            )
        else:
            self._answer(incoming)

    def _has_all(self, index: int, index_term: int) -> bool:
        """Whether this node has what a snapshot at that entry stands for."""
        state = self._state
        if state.role is Role.FRESH:
            return False
        return index <= state.commit_index or state.log.holds(index, index_term)

    def _reply_done(self, sender: int, message: SnapshotChunk) -> None:
        state = self._state
        state.commit_index = max(state.commit_index, message.index)
        reply = SnapshotReply(
            state.current_term,
            message.request_id,
            message.session,
            message.index,
            message.size_bytes,
            True,
        )
        state.send(sender, reply, after_log=state.write_that_holds(message.index))

    def _answer(self, incoming: _Incoming, *, done: bool = False) -> None:
        state = self._state
        if incoming.term != state.current_term:
            return  # whoever asked leads no more
        reply = SnapshotReply(
            state.current_term,
            incoming.request_id,
            incoming.session,
            incoming.index,
            incoming.offset,
            done,
        )
        state.send(incoming.sender, reply)

    def written(self, event: SnapshotWritten) -> None:
        incoming = self._incoming
        if incoming is None or event.index != incoming.index or not incoming.is_writing:
            return
        incoming.is_writing = False
        incoming.offset = event.offset
        self._answer(incoming)
        self.pump()

    def pump(self) -> None:
        """Install a snapshot that is complete, as soon as nothing is being applied."""
        state = self._state
        incoming = self._incoming
        if incoming is None or incoming.is_writing or incoming.is_installing:
            return
        if incoming.offset < incoming.size_bytes or state.applying_to or state.read_for_apply:
            return
        if state.leadership is not None or self._has_all(incoming.index, incoming.index_term):
            # The log came in the meantime: to forget it would take back what was promised.
            self._incoming = None
            return
        incoming.is_installing = state.installing = True
        state.effects.append(
            InstallSnapshot(
                incoming.index, incoming.index_term, incoming.size_bytes, incoming.checksum
            )
        )

    def installed(self, event: SnapshotInstalled) -> None:
        state = self._state
        incoming, self._incoming = self._incoming, None
        require(
            state.installing and incoming is not None and incoming.index == event.index,
            "what was installed is what was to be",
            index=event.index,
        )
        state.installing = False
        if incoming is None:
            return
        snapshot = event.snapshot
        if snapshot is None:
            state.note("snapshot_damaged", sender=incoming.sender, index=event.index)
            return  # the leader offers it again, from the beginning
        was_fresh = state.role is Role.FRESH
        self._take_over(snapshot)
        if was_fresh:
            state.effects.append(FoundCluster(snapshot.configuration.cluster_id))
            state.note("cluster_joined", cluster_id=snapshot.configuration.cluster_id)
        self._answer(incoming, done=True)

    def _take_over(self, snapshot: SnapshotMeta) -> None:
        state = self._state
        require(
            snapshot.index > state.commit_index,
            "a snapshot takes nothing back that is committed",
            snapshot=snapshot.index,
            committed=state.commit_index,
        )
        state.snapshot = snapshot
        state.log.reset(snapshot.index, snapshot.term)
        state.membership.reset(snapshot.configuration_index, snapshot.configuration)
        state.log_was_reset(snapshot.index)
        state.commit_index = state.applied_index = snapshot.index
        state.diverged_index = 0
        state.note("snapshot_installed", index=snapshot.index, term=snapshot.term)
        state.configuration_changed()
