"""The metrics of the kernel part. Without `ebpf.enabled` there is no value for any of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from raft_agent.http.family import Family, Group, Kind, Sample, Value
from raft_agent.http.source import KernelPeerReading, KernelReading, KernelTraffic, Reading

_STATES = ("attached", "attached-but-bypassed", "degraded")


def _kernel(
    kind: Kind, name: str, label: str, text: str, read: Callable[[KernelReading], Iterable[Sample]]
) -> Family:
    def read_if_any(reading: Reading) -> Iterable[Sample]:
        return [] if reading.kernel is None else read(reading.kernel)

    return Family(name, kind, text, (label,) if label else (), read_if_any)


def _peer(kind: Kind, name: str, text: str, value: Callable[[KernelPeerReading], Value]) -> Family:
    return _kernel(
        kind, name, "peer", text, lambda kernel: [((p.name,), value(p)) for p in kernel.peers]
    )


def _sides(peer: KernelPeerReading) -> Iterable[tuple[str, KernelTraffic]]:
    return ("received", peer.received), ("sent", peer.sent)


def _traffic(name: str, text: str, value: Callable[[KernelTraffic], float]) -> Family:
    def read(reading: Reading) -> Iterable[Sample]:
        peers = () if reading.kernel is None else reading.kernel.peers
        return [((p.name, way), value(side)) for p in peers for way, side in _sides(p)]

    return Family(name, Kind.COUNTER, text, ("peer", "direction"), read)


def _frames(reading: Reading) -> Iterable[Sample]:
    peers = () if reading.kernel is None else reading.kernel.peers
    return [
        ((p.name, way, kind), count)
        for p in peers
        for way, side in _sides(p)
        for kind, count in side.frames.items()
    ]


def _wire(reading: Reading) -> Iterable[Sample]:
    peers = () if reading.kernel is None else reading.kernel.peers
    return [((p.name, request), durations) for p in peers for request, durations in p.wire.items()]


KERNEL = Group(
    "The kernel part",
    (
        _kernel(
            Kind.GAUGE,
            "raft_kernel_state",
            "state",
            "1 for the state that the kernel part is in, 0 for the others; absent when it is off, "
            "like all metrics of it.",
            lambda k: [((state,), float(state == k.state)) for state in _STATES],
        ),
        _traffic(
            "raft_kernel_packets_total",
            "Packets of connections with the peer. This and what follows of peers is looked at "
            "once a second.",
            lambda side: side.packets,
        ),
        _traffic(
            "raft_kernel_bytes_total", "Their bytes, all headers included.", lambda s: s.bytes
        ),
        Family(
            "raft_kernel_frames_total",
            Kind.COUNTER,
            "Frames by type; exact while the program knows its place in the streams.",
            ("peer", "direction", "type"),
            _frames,
        ),
        _traffic(
            "raft_kernel_retransmissions_total",
            "Packets that began with bytes that had passed before.",
            lambda side: side.retransmissions,
        ),
        _traffic(
            "raft_kernel_sync_lost_total",
            "How often the program lost its place in a stream.",
            lambda side: side.sync_lost,
        ),
        _traffic(
            "raft_kernel_dropped_packets_total",
            "Packets that a fault made for a test dropped.",
            lambda side: side.fault_drops,
        ),
        _peer(
            Kind.GAUGE,
            "raft_kernel_in_sync",
            "1 while the program knows its place in every stream with the peer.",
            lambda peer: peer.in_sync,
        ),
        Family(
            "raft_kernel_wire_duration_seconds",
            Kind.HISTOGRAM,
            "From a request to its response as the kernel saw both, by what was asked: append or "
            "heartbeat. A sample of all; without a sum.",
            ("peer", "request"),
            _wire,
        ),
        _peer(
            Kind.HISTOGRAM,
            "raft_kernel_loop_lag_seconds",
            "From the arrival of a frame in the kernel to its handling in the event loop. A sample "
            "of all; without a sum.",
            lambda peer: peer.lag,
        ),
        _kernel(
            Kind.COUNTER,
            "raft_kernel_connections_total",
            "outcome",
            "New connections that the filter looked at: admitted, audited (a stranger's, let "
            "through) or dropped.",
            lambda k: [((outcome,), count) for outcome, count in k.connections.items()],
        ),
        _kernel(
            Kind.COUNTER,
            "raft_kernel_lost_events_total",
            "",
            "Events of the program for which its buffer had no room.",
            lambda k: [((), k.lost_events)],
        ),
    ),
)
