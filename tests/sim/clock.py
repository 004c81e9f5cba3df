"""Simulated time: a heap of what happens when."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class Clock:
    """Microseconds since the run began. What is due at the same time runs in the order in which it
    was asked for, so that a run is the same every time.
    """

    __slots__ = ("_heap", "_number", "now_us")

    def __init__(self) -> None:
        self.now_us = 0
        self._number = 0
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []

    def after(self, delay_us: int, action: Callable[..., None], *args: Any) -> None:
        """Call `action(*args)` `delay_us` from now."""
        self._number += 1
        heapq.heappush(self._heap, (self.now_us + delay_us, self._number, action, args))

    def advance(self) -> bool:
        """Go to the next moment at which something is due and do one thing; False when nothing is
        left to do.
        """
        if not self._heap:
            return False
        self.now_us, _, action, args = heapq.heappop(self._heap)
        action(*args)
        return True


class LocalClock:
    """One node's monotonic clock: it starts anywhere and runs `skew_ppm` fast."""

    __slots__ = ("_clock", "_offset_us", "_skew_ppm")

    def __init__(self, clock: Clock, offset_us: int, skew_ppm: int) -> None:
        self._clock = clock
        self._offset_us = offset_us
        self._skew_ppm = skew_ppm

    def now_us(self) -> int:
        return self.at_us(self._clock.now_us)

    def at_us(self, elapsed_us: int) -> int:
        """What it showed so long after the run began."""
        return self._offset_us + elapsed_us + elapsed_us * self._skew_ppm // 1_000_000

    def until_us(self, local_us: int) -> int:
        """How much simulated time passes until this clock shows `local_us`; 0 when it does."""
        remaining_us = local_us - self.now_us()
        if remaining_us <= 0:
            return 0
        # One more than needed at most: a timer may be late, but never early.
        return remaining_us * 1_000_000 // (1_000_000 + self._skew_ppm) + 1
