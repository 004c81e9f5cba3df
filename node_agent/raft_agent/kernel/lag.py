"""The event loop's lag: from a frame's arrival in the kernel to the moment Python handled it."""

from __future__ import annotations

import time
from collections.abc import Iterable

from raft_agent.kernel import layout
from raft_agent.kernel.counters import Log2Histogram
from raft_agent.kernel.sight import Connection, Sight


class LagMeter:
    """Histograms by peer. To look a frame up costs more than to handle it, so it is done for some
    only, as they come after each rest.
    """

    def __init__(self) -> None:
        self._counts: dict[int, list[int]] = {}

    def measure(self, sight: Sight, connections: Iterable[Connection], request_id: int) -> bool:
        """Now the frame with that request id is handled; it came on one of these connections with
        one peer. Whether the kernel knew when it came.
        """
        now_ns = time.monotonic_ns()
        for connection in connections:
            came_ns = sight.arrived_ns(connection, request_id)
            if came_ns is not None and came_ns <= now_ns:
                counts = self._counts.setdefault(connection.peer, [0] * layout.LATENCY_BUCKETS)
                counts[Log2Histogram.bucket(now_ns - came_ns)] += 1
                return True
        return False

    def histogram(self, peer: int) -> Log2Histogram:
        """The lags of frames of this peer."""
        return Log2Histogram(tuple(self._counts.get(peer, [0] * layout.LATENCY_BUCKETS)))
