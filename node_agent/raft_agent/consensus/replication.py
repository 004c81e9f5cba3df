"""The leader's side of replication (§5.3, §5.4.2): what to send to whom, and what is committed."""

from __future__ import annotations

from raft_agent.consensus import quorum
from raft_agent.consensus.batch import Batch, BatchKind, encode
from raft_agent.consensus.freshness import Freshness
from raft_agent.consensus.invariants import require
from raft_agent.consensus.leadership import Leadership
from raft_agent.consensus.membership import replicated_to
from raft_agent.consensus.progress import Progress, ReplicationState
from raft_agent.consensus.snapshots import SnapshotSender
from raft_agent.consensus.state import RaftState
from raft_agent.consensus.types import (
    AppendEntries,
    AppendReply,
    Heartbeat,
    LogRead,
    Propose,
    Proposed,
    ReadLog,
    RefusalReason,
    Role,
    SnapshotRead,
    SnapshotReply,
)


class Replication:
    """Everything a leader does but reads and hand-overs."""

    def __init__(self, state: RaftState, freshness: Freshness) -> None:
        self._state = state
        self._freshness = freshness
        self._snapshots = SnapshotSender(state)
        self._session = 0

    def lead(self) -> None:
        """Begin to lead: a no-op of the own term at once, since only that can commit what older
        terms left behind (§8)."""
        state = self._state
        leadership = Leadership(state.log.last_index + 1, state.now_us)
        state.role = Role.LEADER
        state.fruitless_elections = 0
        state.leader_id = state.member_id
        state.leadership = leadership
        self.follow_configuration(leadership)
        leadership.heartbeat_due_us = state.now_us + state.settings.heartbeat_interval_us
        state.note("leader_elected", last_index=state.log.last_index)
        self.append(leadership, BatchKind.NOOP, 1, b"")

    def follow_configuration(self, leadership: Leadership) -> None:
        """Replicate to everybody who is in the configuration in force, and to nobody else."""
        state = self._state
        configuration = state.configuration
        require(configuration is not None, "a leader has a configuration")
        if configuration is None:
            return
        peers = [peer for peer in replicated_to(configuration) if peer != state.member_id]
        for gone in sorted(set(leadership.progress) - set(peers)):
            del leadership.progress[gone]
            leadership.departed.add(gone)
        for peer in peers:
            if peer not in leadership.progress:
                leadership.progress[peer] = Progress(
                    self._next_session(), state.log.last_index + 1, state.now_us
                )

    def _next_session(self) -> int:
        self._session += 1
        return self._session

    # --- appending

    def propose(self, event: Propose) -> None:
        state = self._state
        leadership = state.leadership
        if leadership is None:
            state.refuse_not_leading(event.tag)
        elif leadership.transfer is not None:
            state.refuse(event.tag, RefusalReason.TRANSFERRING)
        elif (
            leadership.uncommitted_bytes
            and leadership.uncommitted_bytes + len(event.payload)
            > state.settings.max_uncommitted_bytes
        ):
            state.refuse(event.tag, RefusalReason.BUSY)
        else:
            first_index = state.log.last_index + 1
            self.append(leadership, BatchKind.COMMANDS, event.count, event.payload)
            state.effects.append(Proposed(event.tag, first_index, state.current_term))

    def append(self, leadership: Leadership, kind: int, count: int, payload: bytes) -> None:
        """Put one batch into the log and send it to everybody who is in the configuration, which
        is another one as soon as it is appended."""
        state = self._state
        batch = encode(kind, state.log.last_index + 1, state.current_term, count, payload)
        state.append([batch])
        if kind == BatchKind.CONFIGURATION:
            self.follow_configuration(leadership)
        leadership.uncommitted.append((batch.last_index, len(batch.record)))
        leadership.uncommitted_bytes += len(batch.record)
        for peer, progress in leadership.progress.items():
            self._replicate(peer, progress)

    # --- sending

    def _replicate(self, peer: int, progress: Progress) -> None:
        """Send what may be sent. A peer that is probed gets one small message at a time."""
        state = self._state
        settings = state.settings
        log = state.log
        while progress.may_send(settings):
            if progress.next_index <= log.base_index:
                self._snapshots.begin(peer, progress)
                return
            if progress.next_index > log.last_index:
                if progress.state is ReplicationState.PROBE:
                    self._send_append(peer, progress, ())
                return
            probing = progress.state is ReplicationState.PROBE
            max_bytes = 1 if probing else settings.max_append_bytes
            batches = log.slice(progress.next_index, log.last_index, max_bytes)
            if batches is None:
                progress.reading_from = progress.next_index
                state.effects.append(ReadLog(peer, progress.next_index, max_bytes))
                return
            self._send_append(peer, progress, batches)

    def _send_append(self, peer: int, progress: Progress, batches: tuple[Batch, ...]) -> None:
        state = self._state
        # Batches are sent whole: the first may start before next_index, which a refusal gave.
        prev_index = batches[0].first_index - 1 if batches else progress.next_index - 1
        last_index = batches[-1].last_index if batches else prev_index
        request_id = state.next_request_id()
        state.send(
            peer,
            AppendEntries(
                state.current_term,
                request_id,
                progress.session,
                prev_index,
                state.log.term_at(prev_index),
                state.commit_index,
                batches,
            ),
        )
        progress.sent(
            request_id, last_index, sum(len(batch.record) for batch in batches), state.now_us
        )
        if progress.state is ReplicationState.REPLICATE:
            progress.commit_sent = max(progress.commit_sent, min(state.commit_index, last_index))

    def log_read(self, event: LogRead) -> None:
        """Older batches came from disk; the first may start before what was asked for."""
        leadership = self._state.leadership
        progress = leadership.progress.get(event.purpose) if leadership else None
        if progress is None or progress.reading_from != event.from_index:
            return
        progress.reading_from = 0
        batches = event.batches
        # A slow disk may answer a question from before this node was deposed and elected again,
        # with entries that its log has lost in between.
        log = self._state.log
        current = all(log.holds(batch.last_index, batch.term) for batch in batches)
        first_index = batches[0].first_index if batches else 0
        if current and first_index > max(progress.match_index, log.base_index):
            progress.next_index = first_index
            self._send_append(event.purpose, progress, batches)
        self._replicate(event.purpose, progress)

    def peer_connected(self, peer: int) -> None:
        """What was in flight is lost, and the peer may have restarted with a shorter log: a new
        session, in which nothing is known of it."""
        state = self._state
        progress = state.leadership.progress.get(peer) if state.leadership else None
        if progress is not None:
            progress.restart(self._next_session(), state.log.last_index + 1, state.now_us)
            self._freshness.forget_stamp(peer)
            self._replicate(peer, progress)

    # --- acknowledgements

    def append_reply(self, sender: int, message: AppendReply) -> None:
        state = self._state
        leadership = state.leadership
        progress = leadership.progress.get(sender) if leadership else None
        if leadership is None or progress is None or message.session != progress.session:
            return
        progress.last_contact_us = state.now_us
        if message.success:
            if message.match_index > state.log.last_index:
                state.note("impossible_reply", sender=sender, match_index=message.match_index)
                return
            progress.acknowledged(message.match_index, state.now_us)
            self.advance_commit(leadership)
        elif progress.awaits(message.request_id):
            agreed = state.log.last_at_most(message.hint_index, message.hint_term)
            progress.probe(agreed + 1)
        self._replicate(sender, progress)

    def snapshot_reply(self, sender: int, message: SnapshotReply) -> None:
        state = self._state
        leadership = state.leadership
        progress = leadership.progress.get(sender) if leadership else None
        if leadership is None or progress is None or message.session != progress.session:
            return
        progress.last_contact_us = state.now_us
        if self._snapshots.reply(sender, progress, message):
            progress.acknowledged(message.index, state.now_us)
            self.advance_commit(leadership)
            self._replicate(sender, progress)

    def snapshot_read(self, event: SnapshotRead) -> None:
        self._snapshots.read(event)

    def bring_in(self, peer: int, token: int) -> None:
        """A member that has no log yet gets a snapshot, because the log has no beginning."""
        leadership = self._state.leadership
        progress = leadership.progress.get(peer) if leadership else None
        if progress is None:
            return
        under_way = progress.transmission
        # It answers whatever it gets, heartbeats too, with the same token until it has a log.
        if under_way is None or under_way.token != token:
            self._snapshots.begin(peer, progress, token)

    def advance_commit(self, leadership: Leadership) -> None:
        """§5.4.2: an entry is committed by counting replicas only if it is of the own term; all
        before it are committed with it. The leader counts itself once its own disk has it."""
        state = self._state
        configuration = state.configuration
        if configuration is None:
            return
        match = {peer: progress.match_index for peer, progress in leadership.progress.items()}
        match[state.member_id] = state.persisted_index
        index = quorum.reached_by_quorum(configuration, match)
        if index > state.commit_index and state.log.term_at(index) == state.current_term:
            state.commit_index = index
        # With a disk that hangs the followers alone can commit; what it has not written yet stays
        # in memory all the same, so it counts.
        done = min(state.commit_index, state.persisted_index)
        while leadership.uncommitted and leadership.uncommitted[0][0] <= done:
            leadership.uncommitted_bytes -= leadership.uncommitted.popleft()[1]

    def announce_commit(self, leadership: Leadership) -> None:
        """Tell a commit at once to those who hold the entries, not with the next heartbeat. While
        more is on its way the next message with entries tells it as well, or the next commit.
        """
        state = self._state
        if state.commit_index < state.log.last_index:
            return
        for peer, progress in leadership.progress.items():
            known = min(state.commit_index, progress.match_index)
            if known > progress.commit_sent:
                progress.commit_sent = known
                state.send(
                    peer,
                    Heartbeat(state.current_term, 0, progress.session, known, *progress.as_of),
                )

    # --- time

    def tick(self, leadership: Leadership) -> None:
        """Heartbeats, and what was lost is sent again; steps down when no quorum answers."""
        state = self._state
        settings = state.settings
        heard_us = self._quorum_heard_us(leadership)
        self._count_own_stalls(leadership, heard_us)
        leadership.heartbeat_due_us = state.now_us + settings.heartbeat_interval_us
        silence_us = state.now_us - heard_us - leadership.stood_still_us
        if silence_us > settings.election_timeout_max_us:  # §6.2 of the thesis
            state.note("quorum_lost", term=state.current_term)
            state.become_follower(state.current_term, 0)
            return
        request_id = state.next_request_id()
        self._freshness.begin_round(leadership, request_id)
        self.send_heartbeats(leadership, request_id)
        for peer, progress in leadership.progress.items():
            if progress.transmission is not None:
                self._snapshots.tick(peer, progress)
            elif progress.is_overdue(state.now_us, settings.election_timeout_max_us):
                self._probe_again(progress)
                self._replicate(peer, progress)

    def _count_own_stalls(self, leadership: Leadership, heard_us: int) -> None:
        """While this leader stood still it asked nobody, so nobody's silence counts for so long.
        Whoever took its place meanwhile says so in the next answer.
        """
        last_tick_us = leadership.heartbeat_due_us - self._state.settings.heartbeat_interval_us
        if heard_us > last_tick_us:
            leadership.stood_still_us = 0
        leadership.stood_still_us += self._state.now_us - leadership.heartbeat_due_us

    def _probe_again(self, progress: Progress) -> None:
        """Ask at the same place when a probe was lost. Where the log begins is worth a question
        even if the peer has not said that it has so much: a snapshot costs more."""
        is_probe = progress.state is ReplicationState.PROBE
        next_index = progress.next_index if is_probe else progress.match_index + 1
        progress.probe(max(next_index, self._state.log.base_index + 1))

    def send_heartbeats(self, leadership: Leadership, request_id: int) -> None:
        state = self._state
        leadership.lease.sent(request_id, state.now_us, 2 * state.settings.election_timeout_max_us)
        term = state.current_term
        for peer, progress in leadership.progress.items():
            known = min(state.commit_index, progress.match_index)
            progress.commit_sent = max(progress.commit_sent, known)
            state.send(peer, Heartbeat(term, request_id, progress.session, known, *progress.as_of))

    def _quorum_heard_us(self, leadership: Leadership) -> int:
        """The latest moment since when every member of some quorum has been heard; 0 for none."""
        state = self._state
        if state.configuration is None:
            return 0
        heard_us = {peer: known.last_contact_us for peer, known in leadership.progress.items()}
        heard_us[state.member_id] = state.now_us
        return quorum.reached_by_quorum(state.configuration, heard_us)
