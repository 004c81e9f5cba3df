"""One node's process: the host of a real core, as the agent's runtime is one.

It carries out effects in their order, holds messages until what they depend on is on disk, applies
batches to a real state machine, and can be paused and killed between any two effects.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from raft_agent.consensus import invariants
from raft_agent.consensus.node import Node
from raft_agent.consensus.types import (
    Abandon,
    AppendLog,
    Applied,
    Apply,
    CompactLog,
    ConfigurationChanged,
    Effect,
    Event,
    FoundCluster,
    InstallSnapshot,
    LogPersisted,
    LogRead,
    MembershipChanged,
    Message,
    Note,
    PeerConnected,
    PeerLost,
    Proposed,
    ReadLog,
    ReadReady,
    ReadSnapshot,
    Received,
    Recovered,
    Refused,
    RoleChanged,
    SaveVote,
    Send,
    StateJudged,
    StorageFailed,
    TimerExpired,
    TransferDone,
    VotePersisted,
    WriteSnapshot,
)
from raft_agent.machine.machine import Machine
from raft_agent.machine.snapshot import SnapshotView
from raft_agent.machine.state import KEYS_AT_ONCE
from tests.sim.audits import Audits
from tests.sim.clock import LocalClock
from tests.sim.disk import Disk, LogWrite
from tests.sim.exporting import Exports
from tests.sim.leasing import LeaseKeeper
from tests.sim.service import Service
from tests.sim.snapshots import Snapshots, restored
from tests.sim.versions import VersionAsk, VersionKeeper, VersionPromise

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster


class Process:
    """Node number `index`. `member_id` changes when its disk is wiped, its name never does."""

    def __init__(self, cluster: Cluster, index: int) -> None:
        self.cluster = cluster
        self.index = index
        self.name = f"node-{index + 1}"
        self._rng = cluster.rng(f"process/{index}")
        offset_us = self._rng.randrange(1 << 40)
        self.clock = LocalClock(cluster.clock, offset_us, cluster.options.skew_ppm[index])
        self.address = f"10.0.0.{index + 1}:5555"
        self._peer_names = cluster.names if len(cluster.names) > 1 else ()
        self.boots = 0
        self.crash_after: int | None = None
        self.crash_at_write = False
        self.node: Node | None = None
        self.program: type[Machine] = Machine
        self.machine = Machine()
        self.service = Service(self)
        self.versions = VersionKeeper(self)
        self.snapshots = Snapshots(self)
        self.audits = Audits(self)
        self.exports = Exports(self)
        self.lease_keeper = LeaseKeeper(self)
        self.is_paused = False
        self._inbox: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._held: list[tuple[Send, int]] = []
        self._timer_at_us: int | None = None
        self._heard_us: dict[int, tuple[int, int]] = {}
        self._carry: dict[type, Callable[[Any], None]] = {
            Send: self._send,
            AppendLog: self._append_log,
            SaveVote: self._save_vote,
            ReadLog: self._read_log,
            Apply: self._apply,
            Proposed: self._proposed,
            Refused: self._refused,
            ReadReady: self._read_ready,
            TransferDone: self._refused,
            MembershipChanged: self._membership_changed,
            Recovered: lambda effect: self.cluster.recovered(self, effect.index),
            Abandon: self._abandon,
            CompactLog: self.snapshots.compact,
            ReadSnapshot: self.snapshots.read,
            WriteSnapshot: self.snapshots.write,
            InstallSnapshot: self.snapshots.install,
            FoundCluster: self._found_cluster,
            RoleChanged: self._role_changed,
            ConfigurationChanged: self._nothing,
            StateJudged: self.audits.judged,
            Note: self._note,
        }
        if self.is_spare:
            self._peer_names = ()
        self.new_disk()

    @property
    def is_spare(self) -> bool:
        """Whether it was not there when the cluster was founded."""
        return self.index >= self.cluster.options.nodes

    def new_disk(self) -> None:
        """Start over as somebody else: the id is born with the data directory. Once the cluster is
        there, and somebody can take it in, it waits for that."""
        if self.cluster.checks.cluster_id and self.cluster.options.operator is not None:
            self._peer_names = ()
        self.member_id = self._rng.getrandbits(64) | 1
        self.disk = Disk(
            self.cluster.clock,
            self.cluster.rng(f"disk/{self.member_id}"),
            self.cluster.options.disk,
            self.cluster.seen,
        )

    def wait_to_be_joined(self) -> None:
        """It founds no cluster when it starts with an empty disk."""
        self._peer_names = ()

    def wall_ms(self) -> int:
        """What this machine's clock on the wall shows."""
        return self.cluster.wall_ms() + self.cluster.options.wall_ahead_ms[self.index]

    # --- a process's life

    def start(self) -> None:
        cluster = self.cluster
        self.boots += 1
        self.crash_after = None
        self.crash_at_write = False
        self.is_paused = False
        self._inbox = []
        self._held = []
        self._timer_at_us = None
        self._heard_us = {}
        self.snapshots.begin()
        self.audits.begin()
        self.lease_keeper.begin()
        self.versions.begin()
        vote, log, snapshot = self.disk.open(
            self._soon(self._log_synced),
            self._soon(self._vote_synced),
            self._soon(self.snapshots.installed),
            self._soon(self._failed),
        )
        stored = self.disk.shelf.find(snapshot.index) if snapshot is not None else None
        self.machine = restored(self, stored) if stored is not None else self.program()
        self.service = Service(self)
        self.node = Node(
            member_id=self.member_id,
            name=self.name,
            address=self.address,
            peer_names=self._peer_names,
            vote=vote,
            log=log,
            snapshot=snapshot,
            settings=cluster.options.settings,
            seed=self._rng.getrandbits(64),
            now_us=self.clock.now_us(),
            bootstrap=cluster.names == (self.name,) and not cluster.checks.cluster_id,
        )
        self.exports.begin()
        cluster.checks.started(self, self.node)
        cluster.version_checks.started(self)
        cluster.network.started(self.index)
        self._arm_timer(self.node)

    def crash(self, *, kill: bool = False, damage: bool = False) -> None:
        """End the process at once; what it had not sent is never sent."""
        if self.node is None:
            return
        self.node = None
        self.service.lost()
        self.cluster.checks.ended(self)
        self.disk.crash(kill=kill, damage=damage)
        if not kill:
            self.exports.lost_power()
        self.cluster.crashed(self)
        self.cluster.network.ended(self.index)

    def begin_snapshot(self) -> SnapshotView:
        """Of the state as it is. Two of three nodes read their keys little by little, as they would
        if there were very many; what they come to must be the same."""
        self.machine.keys_at_once = KEYS_AT_ONCE if self.index % 3 == 2 else 0
        return self.machine.begin_snapshot()

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False
        boot = self.boots
        inbox, self._inbox = self._inbox, []
        for action, args in inbox:
            if boot == self.boots:
                self.run(action, *args)

    def run(self, action: Callable[..., None], *args: Any) -> None:
        """Do something in this process: now, when it is resumed, or never."""
        if self.is_paused:
            self._inbox.append((action, args))
        elif self.node is not None:
            action(*args)

    def _soon(self, action: Callable[[Any], None]) -> Callable[[Any], None]:
        return lambda argument: self.run(action, argument)

    # --- events

    def step(self, event: Event) -> None:
        node = self.node
        if node is None:
            return
        cluster = self.cluster
        cluster.stepping(self, event)
        effects = node.step(event, self.clock.now_us())
        carry = self._carry
        for effect in effects:
            if self.crash_after is not None:
                if self.crash_after == 0:
                    cluster.crashed_mid_step(self, effect)
                    return
                self.crash_after -= 1
            if cluster.tracer is not None:
                cluster.tracer.effect(self, effect)
            carry[type(effect)](effect)
            if self.node is not node:
                return  # it was put aside
        invariants.check(node)
        self.audits.stepped()
        cluster.stepped(self, node, event, effects)
        self._arm_timer(node)

    def receive(
        self, sender_id: int, to: int, message: Message | VersionAsk | VersionPromise
    ) -> None:
        """A message has reached this machine; the process may be there, or not, or paused."""
        if to != self.member_id or self.node is None or not self.versions.is_welcome(sender_id):
            return
        if isinstance(message, VersionAsk | VersionPromise):
            self.run(self.versions.received, sender_id, message)
            return
        self._heard_us[sender_id] = (self.cluster.clock.now_us, message.term)
        self.run(self.step, Received(sender_id, message))

    def connected(self, peer: Process) -> None:
        self.run(self.versions.connected, peer)
        self.run(self.step, PeerConnected(peer.member_id, peer.name))

    def connection_lost(self, peer: int) -> None:
        self.run(self.versions.lost, peer)
        self.run(self.step, PeerLost(peer))

    def _arm_timer(self, node: Node) -> None:
        deadline_us = node.next_deadline_us
        if deadline_us is None:
            return
        at_us = self.cluster.clock.now_us + self.clock.until_us(deadline_us)
        # One that rings too early looks again; that is cheaper than to cancel.
        if self._timer_at_us is not None and self._timer_at_us <= at_us:
            return
        self._timer_at_us = at_us
        delay_us = at_us - self.cluster.clock.now_us
        late_us = self.cluster.options.timer_late_us
        if late_us:
            delay_us += int(self._rng.random() * late_us)
        self.cluster.clock.after(delay_us, self._timer_rang, self.boots, at_us)

    def _timer_rang(self, boot: int, at_us: int) -> None:
        if boot == self.boots and at_us == self._timer_at_us:
            self.run(self._timer_expired)

    def _timer_expired(self) -> None:
        self._timer_at_us = None
        node = self.node
        if node is None:
            return
        deadline_us = node.next_deadline_us
        if deadline_us is None:
            return
        if deadline_us > self.clock.now_us():
            self._arm_timer(node)
        else:
            self.step(TimerExpired(self._leader_silence_us(node)))

    def _leader_silence_us(self, node: Node) -> int | None:
        if not self.cluster.options.tells_silence:
            return None
        heard_us, term = self._heard_us.get(node.leader_id, (0, -1))
        return self.cluster.clock.now_us - heard_us if term == node.current_term else None

    # --- effects

    def _nothing(self, effect: Effect) -> None:
        self.cluster.seen[type(effect).__name__] += 1

    def _role_changed(self, effect: RoleChanged) -> None:
        self._nothing(effect)
        self.lease_keeper.role(effect)
        self.versions.role(effect)

    def _found_cluster(self, effect: FoundCluster) -> None:
        self.disk.cluster_id = effect.cluster_id

    def _abandon(self, _effect: Abandon) -> None:
        self.cluster.abandoned(self)

    def _note(self, note: Note) -> None:
        self.cluster.seen[note.kind] += 1
        if note.kind in ("snapshot_refused", "snapshot_wanted"):
            self.snapshots.take()

    def _send(self, send: Send) -> None:
        disk = self.disk
        if send.after_log <= disk.synced_log_seq and send.after_vote <= disk.synced_vote_seq:
            self._depart(send, 0)
        else:
            self._held.append((send, disk.cuts))

    def _depart(self, send: Send, cuts_since: int) -> None:
        self.cluster.checks.promises.departing(self, send.message, send.to, cuts_since)
        self.cluster.send(self, send.to, send.message)

    def _release_held(self) -> None:
        disk = self.disk
        held, self._held = self._held, []
        for send, cuts in held:
            if send.after_log <= disk.synced_log_seq and send.after_vote <= disk.synced_vote_seq:
                self._depart(send, disk.cuts - cuts)
            else:
                self._held.append((send, cuts))

    def _append_log(self, effect: AppendLog) -> None:
        self.cluster.checks.appending(self, effect)
        self.disk.append(LogWrite(effect.seq, effect.truncate_from, effect.batches))
        if self.crash_at_write or effect.truncate_from:
            self.cluster.faults.writes(self, cuts=effect.truncate_from > 0)

    def _log_synced(self, seq: int) -> None:
        self._release_held()
        self.step(LogPersisted(seq))

    def _save_vote(self, effect: SaveVote) -> None:
        self.disk.save_vote(effect.seq, effect.term, effect.voted_for)

    def _vote_synced(self, seq: int) -> None:
        self._release_held()
        self.step(VotePersisted(seq))

    def _failed(self, reason: str) -> None:
        self.step(StorageFailed(reason))
        self.cluster.disk_failed(self)

    def _read_log(self, effect: ReadLog) -> None:
        self.cluster.seen["read_log_to_apply" if effect.purpose == 0 else "read_log_to_send"] += 1
        self.cluster.clock.after(self.disk.latency_us(), self._read_disk, self.boots, effect)

    def _read_disk(self, boot: int, effect: ReadLog) -> None:
        """In the disk's thread: by the time the core hears of it the log may have been cut."""
        if boot != self.boots or self.node is None:
            return
        batches = []
        size = 0
        for batch in self.disk.written.batches_from(effect.from_index):
            batches.append(batch)
            size += len(batch.record)
            if size > effect.max_bytes:
                break
        answer = LogRead(effect.purpose, effect.from_index, tuple(batches))
        self.cluster.clock.after(self.disk.latency_us(), self.run, self._log_read, boot, answer)

    def _log_read(self, boot: int, answer: LogRead) -> None:
        if boot == self.boots:
            self.step(answer)

    def _apply(self, effect: Apply) -> None:
        for batch in effect.batches if not self._state_is_wrong() else ():
            results = self.machine.apply(batch)
            if self.audits.flips == 0:
                self.cluster.checks.applied(self, batch, results)
            self.cluster.version_checks.applied(self, results)
            self.cluster.leases.applied(batch, results)
            self.cluster.export_checks.applied(self.machine)
            self.service.applied(batch, results)
            self.lease_keeper.applied()
            self.audits.applied(batch)
        delay_us = int(self._rng.random() * 300)
        index = effect.batches[-1].last_index
        self.exports.applied(self.machine.last_applied)
        self.cluster.clock.after(delay_us, self.run, self._applied, self.boots, index)

    def _state_is_wrong(self) -> bool:
        """Whether it is known to be: then nothing is applied to it any more."""
        return self.node is not None and self.node.state.diverged_index > 0

    def _applied(self, boot: int, index: int) -> None:
        if boot == self.boots:
            self.step(Applied(index))
            self.snapshots.applied(index)

    def _proposed(self, effect: Proposed) -> None:
        self.service.proposed(effect)

    def _refused(self, effect: Refused | TransferDone) -> None:
        self.service.refused(effect)

    def _membership_changed(self, effect: MembershipChanged) -> None:
        self.service.membership_changed(effect)

    def _read_ready(self, effect: ReadReady) -> None:
        self.service.read_ready(effect)
