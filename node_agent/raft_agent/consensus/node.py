"""The core's one way in: `step(event) -> effects`.

Nothing in this package reads a clock, draws a random number, opens a file or a socket: the same
events at the same times give the same effects. The host (the agent's runtime, or the simulator)
carries the effects out in their order and feeds back what came of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raft_agent.consensus.appends import Appends
from raft_agent.consensus.applying import PURPOSE, Applying
from raft_agent.consensus.audit import Audit
from raft_agent.consensus.bootstrap import Bootstrap
from raft_agent.consensus.election import Election
from raft_agent.consensus.freshness import Freshness
from raft_agent.consensus.generations import generation_of
from raft_agent.consensus.leadership import Leadership
from raft_agent.consensus.log import RaftLog
from raft_agent.consensus.presence import Presence
from raft_agent.consensus.progress import Progress
from raft_agent.consensus.reads import Reads
from raft_agent.consensus.reconfiguration import Reconfiguration
from raft_agent.consensus.recovery import Recovery
from raft_agent.consensus.replication import Replication
from raft_agent.consensus.snapshots import SnapshotReceiver
from raft_agent.consensus.state import RaftState
from raft_agent.consensus.transfer import Handover
from raft_agent.consensus.types import (
    Announce,
    AppendEntries,
    AppendReply,
    Applied,
    AuditReport,
    AuditWanted,
    BootstrapAnswer,
    BootstrapAsk,
    BootstrapInstall,
    ChangeMembership,
    Configuration,
    Effect,
    Event,
    Generation,
    Heartbeat,
    HeartbeatReply,
    LogImage,
    LogPersisted,
    LogRead,
    PeerConnected,
    PeerLost,
    PreVote,
    PreVoteReply,
    Propose,
    Read,
    ReadIndex,
    ReadIndexReply,
    Received,
    Recover,
    RefusalReason,
    Removed,
    RequestVote,
    Role,
    Settings,
    SnapshotChunk,
    SnapshotInstalled,
    SnapshotMeta,
    SnapshotRead,
    SnapshotReply,
    SnapshotTaken,
    SnapshotWritten,
    StateHashed,
    StorageFailed,
    Superseded,
    TimeoutNow,
    TimerExpired,
    TransferLeadership,
    Vote,
    VotePersisted,
    VoteReply,
)

_ASKED = (Propose, Read, TransferLeadership, ChangeMembership, Recover)
_EVENTS_OF_FRESH_NODES = (
    PeerConnected,
    PeerLost,
    StorageFailed,
    SnapshotWritten,
    SnapshotInstalled,
    VotePersisted,
)
_CALLS = (PreVote, RequestVote, AppendEntries, Heartbeat, ReadIndex, SnapshotChunk, Announce)


class Node:
    """One Raft server.

    `member_id`, `vote`, `log` and `snapshot` (the newest durable one, whose state the state machine
    has at this moment) are what the data directory holds. `peer_names` are the names of
    all members of a first start, this one's included, sorted, or empty for a node that waits to be
    joined; `bootstrap` makes a new cluster of this one member. `seed` must be new at each start.
    `word_us`: for how long, at most, an earlier start promised a leader not to vote.
    """

    def __init__(
        self,
        *,
        member_id: int,
        name: str,
        address: str,
        peer_names: tuple[str, ...],
        vote: Vote,
        log: LogImage,
        settings: Settings,
        seed: int,
        now_us: int,
        bootstrap: bool = False,
        snapshot: SnapshotMeta | None = None,
        word_us: int = 0,
    ) -> None:
        self.state = state = RaftState(
            member_id=member_id,
            vote=vote,
            log=log,
            snapshot=snapshot,
            settings=settings,
            seed=seed,
            now_us=now_us,
            word_us=word_us,
        )
        freshness = Freshness(state)
        self._replication = Replication(state, freshness)
        self._bootstrap = Bootstrap(
            state,
            self._replication.bring_in,
            name=name,
            address=address,
            names=peer_names,
            alone=bootstrap,
        )
        self._reconfiguration = Reconfiguration(state, self._replication.append)
        self._presence = Presence(state, address)
        self._recovery = Recovery(state, address)
        self._election = Election(state, self._replication.lead)
        self._receiver = SnapshotReceiver(state)
        self._appends = Appends(state, self._receiver, freshness)
        self._reads = Reads(state, self._replication, freshness)
        self._handover = Handover(state)
        self._audit = Audit(state, self._replication.append)
        self._applying = Applying(state, self._audit)
        self._on_event: dict[type, Callable[[Any], None]] = {
            Received: self._received,
            Propose: self._replication.propose,
            LogPersisted: self._log_persisted,
            Applied: self._applying.applied,
            TimerExpired: self._timer_expired,
            Read: self._reads.read,
            VotePersisted: self._vote_persisted,
            LogRead: self._log_read,
            PeerConnected: self._peer_connected,
            PeerLost: self._peer_lost,
            TransferLeadership: self._handover.begin,
            ChangeMembership: self._reconfiguration.change,
            Recover: self._recovery.begin,
            Superseded: self._recovery.superseded,
            SnapshotTaken: self._receiver.taken,
            SnapshotRead: self._replication.snapshot_read,
            SnapshotWritten: self._receiver.written,
            SnapshotInstalled: self._receiver.installed,
            AuditWanted: self._audit.wanted,
            StateHashed: self._audit.hashed,
            StorageFailed: self._storage_failed,
        }
        self._on_message: dict[type, Callable[[int, Any], None]] = {
            AppendEntries: self._append_entries,
            AppendReply: self._append_reply,
            Heartbeat: self._heartbeat,
            HeartbeatReply: self._reads.heartbeat_reply,
            PreVote: self._election.pre_vote,
            PreVoteReply: self._election.pre_vote_reply,
            RequestVote: self._election.request_vote,
            VoteReply: self._election.vote_reply,
            TimeoutNow: self._election.timeout_now,
            ReadIndex: self._reads.read_index,
            ReadIndexReply: self._reads.read_index_reply,
            SnapshotChunk: self._snapshot_chunk,
            SnapshotReply: self._snapshot_reply,
            AuditReport: self._audit.report,
        }

    # --- the way in

    def step(self, event: Event, now_us: int) -> list[Effect]:
        """Take in one event; what is to be done, in this order.

        `now_us` never goes back between calls. Raises BrokenInvariantError when Raft's rules are
        broken: then the node must be stopped.
        """
        state = self.state
        state.begin(now_us)
        if state.failed or state.role is Role.FRESH:
            self._step_aside(event)
        elif state.diverged_index and isinstance(event, _ASKED):
            state.refuse(event.tag, RefusalReason.STATE_DIFFERS)
        else:
            self._on_event[type(event)](event)
        if not state.failed:
            self._follow_up()
        return state.finish()

    @property
    def next_deadline_us(self) -> int | None:
        """When the host is to deliver TimerExpired; None: never."""
        state = self.state
        if state.failed:
            return None
        if state.role is Role.FRESH:
            return self._bootstrap.ask_due_us if self._bootstrap.asks else None
        if state.leadership is not None:
            return state.leadership.heartbeat_due_us
        return state.election_due_us

    # --- events

    def _step_aside(self, event: Event) -> None:
        """A node that failed takes no part; a fresh one only in the first start."""
        state = self.state
        if isinstance(event, _ASKED):
            reason = RefusalReason.STORAGE_FAILED if state.failed else RefusalReason.FRESH
            state.refuse(event.tag, reason)
        elif state.failed:
            return
        elif isinstance(event, Received):
            if isinstance(event.message, SnapshotChunk) and self._bootstrap.takes_snapshot(
                event.sender, event.message
            ):
                self._receiver.chunk(event.sender, event.message)
            else:
                self._bootstrap_message(event.sender, event.message)
        elif isinstance(event, TimerExpired):
            if self._bootstrap.asks:
                self._bootstrap.tick()
        elif isinstance(event, _EVENTS_OF_FRESH_NODES):
            self._on_event[type(event)](event)

    def _follow_up(self) -> None:
        """What any event may have made possible."""
        state = self.state
        leadership = state.leadership
        if leadership is not None:
            reads = leadership.reads
            if reads.round or reads.waiting:
                self._reads.serve(leadership)
            self._replication.announce_commit(leadership)
            self._reconfiguration.advance(leadership)
        self._reads.ask()
        self._receiver.pump()
        if state.applied_index < state.commit_index:
            self._applying.pump()
        self._presence.pump()
        if state.recovering:
            self._recovery.pump()
        state.see_what_is_applied()
        log, keep_bytes = state.log, state.settings.resident_bytes
        if log.resident_bytes > keep_bytes:
            log.trim_resident(min(state.applied_index, state.persisted_index), keep_bytes)

    def _timer_expired(self, event: TimerExpired) -> None:
        state = self.state
        leadership = state.leadership
        if leadership is None:
            if state.now_us >= state.election_due_us:
                self._election.timer_expired(event)
                if state.leader_id == 0:
                    self._presence.nobody_is_heard()
        elif state.now_us >= leadership.heartbeat_due_us:
            self._handover.tick(leadership)
            self._replication.tick(leadership)
            if state.leadership is leadership:
                self._lead_well(leadership)

    def _lead_well(self, leadership: Leadership) -> None:
        """What a leader sees to from time to time, besides heartbeats."""
        state = self.state
        if state.disk_stalls:
            self._handover.leave_stalled_disk(leadership)
        self._handover.leave_spoilt_snapshot(leadership)
        self._audit.tick(leadership)
        if state.leadership is not leadership:
            return
        own_address = self._presence.own_move()
        if own_address:
            leadership.announced[state.member_id] = own_address

    def _log_persisted(self, event: LogPersisted) -> None:
        self.state.log_persisted(event.seq)
        if self.state.leadership is not None:
            self._replication.advance_commit(self.state.leadership)

    def _vote_persisted(self, event: VotePersisted) -> None:
        self.state.vote_persisted_seq = event.seq
        self._election.vote_persisted(event.seq)

    def _log_read(self, event: LogRead) -> None:
        if event.purpose == PURPOSE:
            self._applying.log_read(event)
        else:
            self._replication.log_read(event)

    def _peer_connected(self, event: PeerConnected) -> None:
        self._bootstrap.peer_connected(event.peer, event.name)
        self._replication.peer_connected(event.peer)
        self._reconfiguration.peer_connected(event.peer)
        if self.state.role is not Role.FRESH:
            self._presence.peer_connected(event.peer)

    def _peer_lost(self, event: PeerLost) -> None:
        self._bootstrap.peer_lost(event.peer)

    def _storage_failed(self, event: StorageFailed) -> None:
        """What was written is not known any more: lead nothing, acknowledge nothing, vote never."""
        state = self.state
        state.note("storage_failed", reason=event.reason)
        state.become_follower(state.current_term, 0)
        state.give_up_transfer(RefusalReason.STORAGE_FAILED)
        self._reads.ask()
        state.failed = event.reason

    # --- messages

    def _received(self, event: Received) -> None:
        state = self.state
        sender, message = event.sender, event.message
        if state.recovering or state.superseded:
            return
        # A leader that removed itself hands over to an heir that may know the commit already.
        is_last_word = isinstance(message, TimeoutNow)
        if state.membership.is_removed(sender, state.commit_index) and not is_last_word:
            if isinstance(message, _CALLS):
                state.send(sender, Removed(state.current_term, message.request_id))
        elif (handle := self._on_message.get(type(message))) is not None:
            if self._is_of_this_term(sender, message):
                handle(sender, message)
        elif isinstance(message, Announce):
            self._reconfiguration.announced(sender, message)
        elif isinstance(message, Removed):
            self._presence.removed(sender, message)
        else:
            self._bootstrap_message(sender, message)

    def _is_of_this_term(self, sender: int, message: Any) -> bool:
        """Figure 2, "Rules for Servers": a later term makes a follower, an earlier one is refused.

        The term of a pre-vote is one to come, not one that exists.
        """
        state = self.state
        current = state.current_term
        if message.term == current:
            return True
        if isinstance(message, PreVote) or (isinstance(message, PreVoteReply) and message.granted):
            return True
        if message.term > current:
            if (
                isinstance(message, RequestVote)
                and not message.transfer
                and state.leader_is_alive()
            ):
                self._election.refuse_vote(sender, message)
                return False
            state.become_follower(message.term, 0)
            return True
        if isinstance(message, RequestVote):
            self._election.refuse_vote(sender, message)
        elif isinstance(message, AppendEntries | Heartbeat | SnapshotChunk):
            self._appends.refuse_stale(sender, message)
        elif isinstance(message, ReadIndex):
            self._reads.refuse_stale(sender, message)
        return False

    def _bootstrap_message(self, sender: int, message: Any) -> None:
        if isinstance(message, BootstrapAsk):
            self._bootstrap.asked(sender, message)
        elif isinstance(message, BootstrapAnswer):
            self._bootstrap.answered(sender, message)
        elif isinstance(message, BootstrapInstall):
            self._bootstrap.install(sender, message)
        else:
            self._bootstrap.answer(sender)

    def _append_entries(self, sender: int, message: AppendEntries) -> None:
        self._appends.append_entries(sender, message)
        self._reads.heard_leader()

    def _heartbeat(self, sender: int, message: Heartbeat) -> None:
        self._appends.heartbeat(sender, message)
        self._reads.heard_leader()
        self._audit.heard_leader()
        self._presence.heard_leader(sender)

    def _snapshot_chunk(self, sender: int, message: SnapshotChunk) -> None:
        self._appends.snapshot_chunk(sender, message)
        self._reads.heard_leader()

    def _append_reply(self, sender: int, message: AppendReply) -> None:
        self._replication.append_reply(sender, message)
        if message.success:
            self._has_more(sender)

    def _snapshot_reply(self, sender: int, message: SnapshotReply) -> None:
        self._replication.snapshot_reply(sender, message)
        if message.done:
            self._has_more(sender)

    def _has_more(self, peer: int) -> None:
        """A peer has told how far it is."""
        leadership = self.state.leadership
        if leadership is not None and peer in leadership.progress:
            self._handover.advance(leadership, peer)
            self._reconfiguration.heard_of(leadership, peer)

    # --- what hosts and tests read

    @property
    def role(self) -> Role:
        return self.state.role

    @property
    def current_term(self) -> int:
        return self.state.current_term

    @property
    def voted_for(self) -> int:
        return self.state.voted_for

    @property
    def leader_id(self) -> int:
        return self.state.leader_id

    @property
    def commit_index(self) -> int:
        return self.state.commit_index

    @property
    def applied_index(self) -> int:
        return self.state.applied_index

    @property
    def configuration(self) -> Configuration | None:
        return self.state.configuration

    @property
    def configuration_index(self) -> int:
        """The entry of the configuration in force; 0 when there is none."""
        return self.state.membership.index

    def configuration_at(self, index: int) -> tuple[int, Configuration] | None:
        """(its entry, the configuration) in force at the entry `index`; None before the first."""
        return self.state.membership.in_force_at(index)

    @property
    def generation(self) -> Generation:
        """The one that this node shows to others: it is on disk."""
        state = self.state
        shown = generation_of(state.configuration)
        return shown if not state.recovering else generation_of(self._before_recovery())

    def _before_recovery(self) -> Configuration | None:
        known = self.state.membership.in_force_at(self.state.recovering - 1)
        return known[1] if known else None

    def has_lease(self, now_us: int) -> bool:
        """Whether this node leads and no other can have been elected by `now_us`."""
        return self.state.has_lease(now_us)

    def stale_age_us(self, now_us: int) -> int | None:
        """How long ago this node's applied state was known to be all that had been acknowledged.
        None when that was never known.
        """
        state = self.state
        leadership = state.leadership
        if (
            leadership is not None
            and state.applied_index >= leadership.may_be_committed(state.commit_index)
            and state.has_lease(now_us)
        ):
            return 0
        return max(now_us - state.current_as_of_us, 0) if state.current_as_of_us else None

    @property
    def log(self) -> RaftLog:
        return self.state.log

    @property
    def progress(self) -> dict[int, Progress]:
        """Replication to each peer; empty unless this node leads."""
        leadership = self.state.leadership
        return leadership.progress if leadership is not None else {}
