"""What `raftctl kernel` shows: the program's counters, added up per member."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from operator import add

from raft_agent.api.protocol import KernelPeer, KernelTraffic
from raft_agent.consensus.types import LeaderStamp
from raft_agent.kernel.counters import Counters, Flow, Log2Histogram
from raft_agent.kernel.layout import Sync
from raft_agent.kernel.part import KernelPart
from raft_agent.kernel.sight import Connection, Sight
from raft_agent.transport.transport import PeerStats
from raft_agent.wire import FrameType

_NAMES = {int(kind): kind.name.lower() for kind in FrameType}


def peers(
    kernel: KernelPart,
    sight: Sight,
    connections: Iterable[Connection],
    counted: Mapping[int, PeerStats],
    name_of: Callable[[int], str],
) -> list[KernelPeer]:
    """Of every member the connections that stand, by name. Raises OSError."""
    flows: dict[int, list[Flow]] = {}
    stamps: dict[int, LeaderStamp] = {}
    for connection in connections:
        flow = sight.flow(connection)
        if flow is None:
            continue
        flows.setdefault(connection.peer, []).append(flow)
        stamp = sight.last_append(connection)
        if stamp is not None:
            silence_us = (time.monotonic_ns() - stamp.time_ns) // 1000
            stamps[connection.peer] = LeaderStamp(silence_us, stamp.sender, stamp.term)
    found = [
        _peer(name_of(peer), seen, kernel.lag(peer), stamps.get(peer), counted[peer])
        for peer, seen in flows.items()
        if peer in counted
    ]
    return sorted(found, key=lambda peer: peer.name)


def _peer(
    name: str,
    flows: list[Flow],
    lag: Log2Histogram,
    stamp: LeaderStamp | None,
    counted: PeerStats,
) -> KernelPeer:
    sides = [side for flow in flows for side in (flow.ingress, flow.egress)]
    appends = reduce(add, (side.append_latency for side in sides))
    heartbeats = reduce(add, (side.heartbeat_latency for side in sides))
    return KernelPeer(
        name,
        len(flows),
        all(side.sync is not Sync.LOST for side in sides),
        _traffic([flow.ingress for flow in flows], counted.frames_in, counted.bytes_in),
        _traffic([flow.egress for flow in flows], counted.frames_out, counted.bytes_out),
        _times(appends if appends.total else heartbeats),
        _times(lag),
        None if stamp is None else stamp.silence_us // 1000,
        None if stamp is None else stamp.term,
    )


def _traffic(sides: list[Counters], agent_frames: int, agent_bytes: int) -> KernelTraffic:
    frames: dict[str, int] = {}
    for side in sides:
        for kind, count in side.types.items():
            name = _NAMES.get(kind, f"type_{kind}")
            frames[name] = frames.get(name, 0) + count.frames
    return KernelTraffic(
        sum(side.packets for side in sides),
        sum(side.bytes for side in sides),
        sum(side.retransmissions for side in sides),
        frames,
        sum(side.entries for side in sides),
        sum(side.sync_lost for side in sides),
        sum(side.stream_bytes for side in sides),
        agent_frames,
        agent_bytes,
    )


def _times(histogram: Log2Histogram) -> tuple[int, int] | None:
    median, tail = histogram.quantile_ns(0.5), histogram.quantile_ns(0.99)
    return None if median is None or tail is None else (median // 1000, tail // 1000)
