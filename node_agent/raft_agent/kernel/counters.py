"""What the program has counted, as values."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping

import msgspec

from raft_agent.kernel import layout
from raft_agent.kernel.layout import Direction, FlowKey, Stat, Sync, UnreadableError
from raft_agent.kernel.libbpf import Map

_NUMBERS = layout.HOT_COUNTERS + layout.OTHER_COUNTERS
_WALKER_SYNC = layout.WALKER.offset("sync")


class Log2Histogram(msgspec.Struct, frozen=True):
    """How many durations there were by size: `counts[0]` below 2^11 ns (2 µs), `counts[i]` from
    2^(10+i) ns up to twice that.
    """

    counts: tuple[int, ...] = (0,) * layout.LATENCY_BUCKETS

    @property
    def total(self) -> int:
        """How many there were."""
        return sum(self.counts)

    def quantile_ns(self, quantile: float) -> int | None:
        """A duration that the share `quantile` of all is below, at most twice too long. None
        without any.
        """
        wanted = quantile * self.total
        passed = 0
        for bucket, count in enumerate(self.counts):
            passed += count
            if count and passed >= wanted:
                return 1 << (layout.LATENCY_SHIFT + bucket)
        return None

    def up_to(self) -> Iterator[tuple[float, int]]:
        """(upper bound in ns, how many were below it), rising; the last bound is infinite."""
        total = 0
        for bucket, count in enumerate(self.counts[:-1]):
            total += count
            yield float(1 << (layout.LATENCY_SHIFT + bucket)), total
        yield math.inf, total + self.counts[-1]

    def __add__(self, other: Log2Histogram) -> Log2Histogram:
        return Log2Histogram(tuple(map(sum, zip(self.counts, other.counts, strict=True))))

    @staticmethod
    def bucket(duration_ns: int) -> int:
        """The place in `counts` of a duration."""
        return min((duration_ns >> layout.LATENCY_SHIFT).bit_length(), layout.LATENCY_BUCKETS - 1)


class TypeCount(msgspec.Struct, frozen=True):
    """Frames of one type; `bytes` counts their headers and bodies."""

    frames: int
    bytes: int


class Counters(msgspec.Struct, frozen=True):
    """One direction of a flow; struct raft_counters of bpf/raft_maps.h says what they mean."""

    packets: int
    bytes: int
    segments: int
    payload_bytes: int
    stream_bytes: int
    syn: int
    fin: int
    rst: int
    retransmissions: int
    retransmitted_bytes: int
    gaps: int
    gap_bytes: int
    strays: int
    fragments: int
    fault_drops: int
    last_ns: int
    sync_lost: int
    sync_regained: int
    unparsed_bytes: int
    bad_headers: int
    entries: int
    term: int
    sender: int
    sync: Sync
    types: Mapping[int, TypeCount]
    append_latency: Log2Histogram
    heartbeat_latency: Log2Histogram

    @property
    def frames(self) -> int:
        """Frames of all types."""
        return sum(count.frames for count in self.types.values())


class Flow(msgspec.Struct, frozen=True):
    """One TCP connection."""

    key: FlowKey
    ingress: Counters
    egress: Counters


def read_flow(flows: Map, key: FlowKey) -> Flow | None:
    """The counters of one flow, None when no packet of it was seen. Raises OSError."""
    value = flows.lookup(key.encode())
    return None if value is None else decode_flow(key, value)


def read_stats(stats: Map) -> dict[Stat, int]:
    """What belongs to no flow; EVENTS_LOST is the sum over all kinds. Raises OSError."""
    counts = {stat: stats.lookup_sum(layout.INDEX.pack(stat)) for stat in Stat}
    counts[Stat.EVENTS_LOST] = sum(read_events_lost(stats).values())
    return counts


def read_events_lost(stats: Map) -> dict[layout.EventKind, int]:
    """How many events of each kind found the ring buffer full. Raises OSError."""
    return {
        kind: stats.lookup_sum(layout.INDEX.pack(Stat.EVENTS_LOST + kind))
        for kind in layout.EventKind
    }


def decode_flow(key: FlowKey, value: bytes) -> Flow:
    """One struct raft_flow. Raises UnreadableError."""
    try:
        return Flow(key, _counters(value, Direction.INGRESS), _counters(value, Direction.EGRESS))
    except (struct.error, ValueError) as error:
        raise UnreadableError(f"a flow: {error}") from None


def _counters(value: bytes, direction: Direction) -> Counters:
    data = layout.COUNTERS.unpack_from(value, direction * layout.COUNTERS.size)
    fields = dict(zip(layout.COUNTERS.fields, data, strict=True))
    pairs = layout.TYPE_COUNT.iter_unpack(fields["types"])
    return Counters(
        **{name: fields[name] for name in _NUMBERS},
        sync=Sync(fields["walker"][_WALKER_SYNC]),
        types={kind: TypeCount(*pair) for kind, pair in enumerate(pairs) if pair[0]},
        append_latency=_histogram(fields["append_latency"]),
        heartbeat_latency=_histogram(fields["heartbeat_latency"]),
    )


def _histogram(data: bytes) -> Log2Histogram:
    return Log2Histogram(tuple(count for (count,) in layout.U64.iter_unpack(data)))
