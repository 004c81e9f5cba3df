"""A node in numbers, for the API, the metrics and the status page. Gathers when it is asked; what
has to be counted as it happens is counted where it happens.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from raft_agent.api.protocol import Latency, VitalsResult
from raft_agent.consensus.node import Node
from raft_agent.consensus.types import Role
from raft_agent.histogram import Histogram, add_up
from raft_agent.machine.machine import Machine
from raft_agent.runtime.auditor import Auditor
from raft_agent.runtime.barriers import Barriers
from raft_agent.runtime.certificates import Certificates
from raft_agent.runtime.engine import Engine, now_us
from raft_agent.runtime.events import EventLog, rfc3339
from raft_agent.runtime.export_side import ExportSide
from raft_agent.runtime.kernel_side import KernelSide
from raft_agent.runtime.loop_lag import LoopLag
from raft_agent.runtime.proposals import Proposals
from raft_agent.runtime.snapshotter import Snapshotter
from raft_agent.runtime.views import Views
from raft_agent.storage.store import Store
from raft_agent.transport.transport import PeerStats, Transport

if TYPE_CHECKING:
    from raft_agent.http.source import PeerReading, Reading, SnapshotReading

_ELECTION_PHASES = {
    "pre_vote": "pre_vote_started",
    "vote": "election_started",
    "won": "leader_elected",
    "deferred": "election_deferred",
}


class Readings:
    def __init__(
        self,
        *,
        node: Node,
        machine: Machine,
        store: Store,
        transport: Transport,
        engine: Engine,
        proposals: Proposals,
        barriers: Barriers,
        snapshotter: Snapshotter,
        auditor: Auditor,
        loop_lag: LoopLag,
        events: EventLog,
        views: Views,
        kernel: KernelSide,
        exports: ExportSide,
        certificates: Certificates | None,
        count_clients: Callable[[], int],
    ) -> None:
        """`count_clients`: how many are connected."""
        self._node = node
        self._machine = machine
        self._store = store
        self._transport = transport
        self._engine = engine
        self._proposals = proposals
        self._barriers = barriers
        self._snapshotter = snapshotter
        self._auditor = auditor
        self._loop_lag = loop_lag
        self._events = events
        self._views = views
        self._kernel = kernel
        self._exports = exports
        self._certificates = certificates
        self._count_clients = count_clients
        self._started = rfc3339(time.time())

    def vitals(self) -> VitalsResult:
        node = self._node
        snapshot = node.state.snapshot
        peers = self._transport.stats().values()
        return VitalsResult(
            time=rfc3339(time.time()),
            started=self._started,
            first_index=self._store.first_index,
            last_index=node.log.last_index,
            persisted_index=node.state.persisted_index,
            commit_index=node.commit_index,
            applied_index=node.applied_index,
            snapshot_index=snapshot.index if snapshot else 0,
            latencies={
                "commit": _latency(self._proposals.counts.commits),
                "fsync": _latency(self._store.fsyncs),
                "wire": _latency(add_up([peer.round_trips for peer in peers])),
                "loop_lag": _latency(self._loop_lag.lags),
            },
            proposals=self._outcomes(),
            elections={
                phase: self._events.counts[kind] for phase, kind in _ELECTION_PHASES.items()
            },
            queues=self._queues(),
            counts={
                "clients": self._count_clients(),
                "keys": self._machine.key_count(),
                "sessions": self._machine.session_count(),
                "watches": sum(self._machine.watches.counts().values()),
            },
        )

    def _outcomes(self) -> dict[str, int]:
        counts = self._proposals.counts
        return {
            "applied": counts.applied,
            "refused": counts.refused,
            "lost": counts.lost,
            "unknown": counts.unknown,
        }

    def _queues(self) -> dict[str, int]:
        return {
            "events": self._engine.inbox_length,
            "held_messages": self._engine.held_count,
            "gathered_proposals": self._proposals.gathered_count,
            "logged_proposals": self._proposals.logged_count,
            "reads": self._barriers.waiting_count,
            "log_writes": self._store.queue_length,
        }

    def not_ready(self) -> str:
        """Why this node can't serve clients; "" when it can."""
        state = self._node.state
        if state.failed or state.was_removed or state.installing:
            return self._views.status().note
        unfit = self._auditor.unfit()
        if unfit is not None:
            return unfit.error
        if self._node.role is Role.FRESH:
            return self._views.status().note or "belongs to no cluster yet"
        if not self._node.leader_id:
            return "no leader is known: an election is under way, or there is no quorum"
        return ""

    def reading(self) -> Reading:
        """All of it."""
        from raft_agent.http.source import Reading  # noqa: PLC0415  # only with server.http_addr

        state = self._node.state
        return Reading(
            status=self._views.status(),
            vitals=self.vitals(),
            not_ready=self.not_ready(),
            storage_failed=bool(state.failed),
            disk_stalls=state.disk_stalls,
            commits=self._proposals.counts.commits,
            fsyncs=self._store.fsyncs,
            loop_lags=self._loop_lag.lags,
            events=Counter(self._events.counts),
            peers=self._peers(),
            rejects=self._transport.reject_counts,
            snapshot=self._snapshot(),
            watches=self._machine.watches.counts(),
            one_shots=self._machine.one_shot_count(),
            revision=self._machine.revision,
            state_checks=Counter(self._auditor.judgements),
            agreed_index=self._auditor.agreed_index,
            state_differs=bool(state.diverged_index),
            kernel=self._kernel.reading(),
            exports=None if self._exports.directory is None else self._exports.listing(),
            certificate_ends=None if self._certificates is None else self._certificates.not_after,
        )

    def _snapshot(self) -> SnapshotReading:
        from raft_agent.http.source import SnapshotReading  # noqa: PLC0415

        newest = self._node.state.snapshot
        return SnapshotReading(
            index=newest.index if newest else 0,
            size_bytes=newest.size_bytes if newest else 0,
            taken_at=self._snapshotter.taken_at,
            durations=self._snapshotter.durations,
        )

    def _peers(self) -> list[PeerReading]:
        """The other members, whether they were ever reached or not."""
        configuration = self._node.configuration
        if configuration is None:
            return []
        stats = self._transport.stats()
        own_id = self._node.state.member_id
        return [
            self._peer(member.id, member.name, stats.get(member.id) or PeerStats())
            for member in sorted(configuration.members, key=lambda member: member.name)
            if member.id != own_id
        ]

    def _peer(self, member_id: int, name: str, stats: PeerStats) -> PeerReading:
        from raft_agent.http.source import PeerReading  # noqa: PLC0415

        progress = None
        if self._node.role is Role.LEADER:
            progress = self._node.progress.get(member_id)
        if progress is not None:
            contact_s: float | None = (now_us() - progress.last_contact_us) / 1e6
        elif stats.last_received is not None:
            contact_s = max(time.monotonic() - stats.last_received, 0.0)
        else:
            contact_s = None
        return PeerReading(
            name=name,
            is_connected=stats.connected,
            match_index=None if progress is None else progress.match_index,
            lag=None if progress is None else self._node.log.last_index - progress.match_index,
            contact_s=contact_s,
            received_bytes=stats.bytes_in,
            sent_bytes=stats.bytes_out,
            received_frames=stats.frames_in,
            sent_frames=stats.frames_out,
            dropped_frames=stats.dropped_frames,
            queued_bytes=stats.queued_bytes,
            reconnects=stats.reconnects,
            round_trips=stats.round_trips,
        )


def _latency(histogram: Histogram) -> Latency:
    return Latency(list(histogram.buckets), histogram.sum_us)
