"""The event loop's lag: from a frame's arrival in the kernel to the moment it was handled.

The program remembers when the last few frames of each direction passed, by their request ids. The
agent notes the same when it handles one, and once in a while brings the two together: a sample, at
the price of a clock reading per frame and a map lookup now and then.
"""

from __future__ import annotations

import time

from raft_agent.kernel import layout
from raft_agent.kernel.counters import Log2Histogram
from raft_agent.kernel.layout import Direction, FlowKey
from raft_agent.kernel.libbpf import Map

_OFFSET = Direction.INGRESS * layout.COUNTERS.size + layout.COUNTERS.offset("recent")
_END = _OFFSET + layout.RECENT * layout.RECENT_FRAME.size


class LagMeter:
    """The lag of one peer's frames, as `lag`, since it was made."""

    def __init__(self) -> None:
        self._handled: dict[int, int] = {}
        self._counts = [0] * layout.LATENCY_BUCKETS

    @property
    def lag(self) -> Log2Histogram:
        """How long the frames that were measured had waited."""
        return Log2Histogram(tuple(self._counts))

    def handled(self, request_id: int) -> None:
        """The frame with this request id came out of the connection now. Ids of 0 mean nothing."""
        handled = self._handled
        handled[request_id] = time.monotonic_ns()
        if len(handled) > layout.RECENT:
            del handled[next(iter(handled))]

    def take_in(self, flows: Map, flow: FlowKey) -> None:
        """Measure what the kernel still remembers of one of the peer's connections; each frame
        once. Raises OSError.
        """
        value = flows.lookup(flow.encode())
        if value is None:
            return
        for request_id, arrived_ns in layout.RECENT_FRAME.iter_unpack(value[_OFFSET:_END]):
            handled_ns = self._handled.pop(request_id, 0)
            # 0: it was answered, and the program keeps the time no longer. An id that came again
            # since it was handled is newer than its handling.
            if request_id and arrived_ns and handled_ns >= arrived_ns:
                self._counts[Log2Histogram.bucket(handled_ns - arrived_ns)] += 1
