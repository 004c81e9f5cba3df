"""How late the event loop is."""

from __future__ import annotations

import asyncio
import time

from raft_agent.histogram import Histogram

# Each look wakes an idle process up.
_INTERVAL_S = 0.5


class LoopLag:
    """A timer that notes how late it fires: whatever keeps the loop from it keeps heartbeats and
    clients waiting too. uvloop's timers count in milliseconds, so less than one says nothing.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.lags = Histogram()
        self._loop = loop
        self._due_ns = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._due_ns = time.perf_counter_ns() + int(_INTERVAL_S * 1e9)
        self._timer = self._loop.call_later(_INTERVAL_S, self._fired)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _fired(self) -> None:
        self.lags.add(max(time.perf_counter_ns() - self._due_ns, 0) // 1000)
        self.start()
