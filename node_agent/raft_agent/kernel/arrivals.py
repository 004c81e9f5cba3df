"""When a frame came, as the kernel saw it: how long it then waited is the event loop's lag."""

from __future__ import annotations

from raft_agent.kernel import layout
from raft_agent.kernel.layout import Direction, FlowKey
from raft_agent.kernel.libbpf import Map

_OFFSET = Direction.INGRESS * layout.COUNTERS.size + layout.COUNTERS.offset("recent")
_MASK_64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def arrived_ns(flows: Map, flow: FlowKey, request_id: int) -> int | None:
    """When the frame with that request id came on the flow (CLOCK_MONOTONIC). None when it did not
    pass, or has been answered, or others have taken its place in the table.

    Raises OSError.
    """
    value = flows.lookup(flow.encode())
    if value is None:
        return None
    offset = _OFFSET + slot(request_id) * layout.RECENT_FRAME.size
    found, time_ns = layout.RECENT_FRAME.unpack_from(value, offset)
    return int(time_ns) if found == request_id and time_ns else None


def slot(request_id: int) -> int:
    """As raft_recent_slot of bpf/raft_count.h."""
    return ((request_id * _GOLDEN & _MASK_64) >> 32) % layout.RECENT
