"""When the leader's last word came, as the kernel saw it, whatever this process was doing then."""

from __future__ import annotations

import msgspec

from raft_agent.kernel import layout
from raft_agent.kernel.layout import Direction, FlowKey
from raft_agent.kernel.libbpf import Map

_OFFSET = Direction.INGRESS * layout.COUNTERS.size + layout.COUNTERS.offset("append")
_READS = 4


class Stamp(msgspec.Struct, frozen=True):
    """The newest AppendEntries or Heartbeat header of a flow that came for the first time.

    `time_ns` is on CLOCK_MONOTONIC (time.monotonic_ns).
    """

    time_ns: int
    term: int
    sender: int


def last_append(flows: Map, flow: FlowKey) -> Stamp | None:
    """The flow's stamp. None when none has come, or when one was written at every reading.

    Raises OSError.

    The kernel writes the three fields one after the other, so only what reads the same twice in a
    row counts.
    """
    key = flow.encode()
    before: Stamp | None = None
    for _ in range(_READS):
        value = flows.lookup(key)
        if value is None:
            return None
        stamp = Stamp(*layout.STAMP.unpack_from(value, _OFFSET))
        if stamp == before:
            return stamp if stamp.time_ns else None
        before = stamp
    return None
