"""A node for the HTTP part to tell about, whose numbers a test sets."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec

from raft_agent.api import protocol
from raft_agent.api.host import Failure
from raft_agent.histogram import Histogram
from raft_agent.http.source import (
    Durations,
    KernelPeerReading,
    KernelReading,
    KernelTraffic,
    PeerReading,
    Reading,
    SnapshotReading,
)

NAMES = ("node-01", "node-02", "node-03")


def histogram(*durations_us: int) -> Histogram:
    made = Histogram()
    for duration_us in durations_us:
        made.add(duration_us)
    return made


def peer(name: str, **more: Any) -> PeerReading:
    given = {
        "is_connected": True,
        "match_index": 40,
        "lag": 2,
        "contact_s": 0.25,
        "received_bytes": 1000,
        "sent_bytes": 2000,
        "received_frames": 10,
        "sent_frames": 20,
        "dropped_frames": 1,
        "queued_bytes": 0,
        "reconnects": 3,
        "round_trips": histogram(500, 700),
    }
    return PeerReading(name=name, **(given | more))


def kernel_reading() -> KernelReading:
    """node-02 has sent 7 heartbeats, and got none."""
    frames = {"packets": 20, "bytes": 3000, "retransmissions": 2, "sync_lost": 1}
    received = KernelTraffic(**frames, fault_drops=4, frames={"heartbeat": 7})
    sent = KernelTraffic(**frames, fault_drops=0, frames={"heartbeat_reply": 7})
    durations = Durations(((0.000002048, 1), (0.000004096, 3), (math.inf, 3)))
    of_peer = KernelPeerReading(
        name="node-02",
        in_sync=True,
        received=received,
        sent=sent,
        wire={"append": durations, "heartbeat": durations},
        lag=durations,
    )
    outcomes = {"admitted": 5, "audited": 0, "dropped": 1}
    return KernelReading(state="attached", peers=[of_peer], connections=outcomes, lost_events=0)


def exported() -> protocol.ExportListResult:
    """One map is kept, the other can't be."""
    listed = ("x/", "hash", "u32", "u32", 10, "", False, 1)
    maps = [
        protocol.ExportInfo("ports", *listed, 7, "/pins/ports_v1"),
        protocol.ExportInfo("broken", *listed, 2, "/pins/broken_v1", "no memory"),
    ]
    return protocol.ExportListResult("degraded", "no memory", 41, 250, maps)


class FakeSource:
    """node-01 of three. `leader_answers`: what a forwarded request comes back with; None: never."""

    node_name = "node-01"

    def __init__(self) -> None:
        self.leads = True
        self.unready = ""
        self.index = 42
        self.commits = histogram(900, 1_100, 3_000)
        self.peers = [peer("node-02"), peer("node-03")]
        self.kernel: KernelReading | None = kernel_reading()
        self.exports: protocol.ExportListResult | None = exported()
        self.leader_answers: bytes | Failure | None = None
        self.forwarded: list[protocol.Request] = []
        self.events: list[protocol.EventItem] = []
        self.subscribers: set[Callable[[protocol.EventItem], None]] = set()

    def is_leader(self) -> bool:
        return self.leads

    def not_ready(self) -> str:
        return self.unready

    def status(self) -> protocol.StatusResult:
        return protocol.StatusResult(
            node_id=self.node_name,
            role="leader" if self.leads else "follower",
            term=7,
            commit_index=self.index,
            last_applied=self.index,
            leader="node-01" if self.leads else "node-02",
            peers=["node-02", "node-03"],
            voters=list(NAMES),
            learners=[],
            members=[protocol.MemberInfo(name, "1" * 16, "h:1", "voter") for name in NAMES],
            cluster_id="c0ffee",
            version="0",
            ebpf=protocol.EbpfStatus(),
        )

    def health(self) -> protocol.HealthResult:
        members = [
            protocol.HealthMember(name, "1" * 16, "h:1", "voter", "healthy", 3, self.index, 0)
            for name in NAMES
        ]
        return protocol.HealthResult(True, self.status().leader, 7, members)

    def vitals(self) -> protocol.VitalsResult:
        commit = protocol.Latency(list(self.commits.buckets), self.commits.sum_us)
        return protocol.VitalsResult(
            time="2026-01-01T00:00:10.000Z",
            started="2026-01-01T00:00:00.000Z",
            first_index=1,
            last_index=self.index,
            persisted_index=self.index,
            commit_index=self.index,
            applied_index=self.index,
            snapshot_index=0,
            latencies=dict.fromkeys(("commit", "fsync", "wire", "loop_lag"), commit),
            proposals={"applied": 3, "refused": 1, "lost": 0, "unknown": 0},
            elections={"pre_vote": 2, "vote": 1, "won": 1, "deferred": 0},
            queues={"events": 0, "reads": 5},
            counts={"clients": 4, "keys": 9, "sessions": 1, "watches": 2},
        )

    def reading(self) -> Reading:
        return Reading(
            status=self.status(),
            vitals=self.vitals(),
            not_ready=self.unready,
            storage_failed=False,
            disk_stalls=False,
            commits=self.commits,
            fsyncs=histogram(400),
            loop_lags=histogram(0, 50),
            events={"leader_elected": 1, "leader_found": 2},
            peers=self.peers,
            rejects={"identity": 2},
            certificate_ends=1_800_000_000.0,
            snapshot=SnapshotReading(index=0, size_bytes=0, taken_at=None, durations=histogram()),
            watches={"keys": 1, "prefixes": 1, "messages": 0},
            one_shots=0,
            revision=9,
            state_checks={"agrees": 5},
            agreed_index=40,
            state_differs=False,
            kernel=self.kernel,
            exports=self.exports,
        )

    def forward(self, request: protocol.Request, done: Callable[[bytes | Failure], None]) -> None:
        self.forwarded.append(request)
        if self.leader_answers is not None:
            done(self.leader_answers)

    def recent_events(self, limit: int) -> list[protocol.EventItem]:
        return self.events[-limit:]

    def subscribe_events(
        self, on_event: Callable[[protocol.EventItem], None]
    ) -> Callable[[], None]:
        self.subscribers.add(on_event)
        return lambda: self.subscribers.discard(on_event)

    def happen(self, kind: str) -> None:
        event = protocol.EventItem("2026-01-01T00:00:09.000Z", kind, 7, f"it {kind}", {})
        self.events.append(event)
        for subscriber in list(self.subscribers):
            subscriber(event)


def leaders_health(term: int) -> bytes:
    """The answer of a leader of `term` to a forwarded Health."""
    health = msgspec.structs.replace(FakeSource().health(), leader="node-02", term=term)
    return protocol.ENCODER.encode((1, None, health))
