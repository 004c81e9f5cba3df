"""Requests at a fixed rate, whether the answers come in time or not.

A closed loop asks less often when answers are slow, so it can't say how long requests take at a
load that somebody else decides. Here each request has a moment at which it is due, and its latency
counts from then, also while all slots of all clients are taken.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

# uvloop's timers count in milliseconds; what is due in one of them is sent together.
_TICK_S = 0.001


class Sender(Protocol):
    """A client. `is_gone`: its connection has ended."""

    is_gone: bool

    def send(self, slots: list[tuple[int, float]]) -> None:
        """Send a request in each slot, which was due at the moment beside it."""


class Pacer:
    """Hands the requests that are due to the slots that are free, the longest free one first."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.perf_counter) -> None:
        """`rate`: requests a second."""
        self._clock = clock
        self._interval_s = 1 / rate
        self._next_due = 0.0
        self._free: deque[tuple[Sender, int]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        self._next_due = self._clock()
        self._tick()

    def end(self) -> int:
        """Send nothing more; how many requests were due and never sent."""
        if self._timer is not None:
            self._timer.cancel()
        return max(0, int((self._clock() - self._next_due) / self._interval_s))

    def are_free(self, client: Sender, slots: Sequence[int]) -> None:
        self._free.extend([(client, slot) for slot in slots])
        if self._timer is not None:
            self._send()

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_TICK_S, self._tick)
        self._send()

    def _send(self) -> None:
        now = self._clock()
        due: dict[Sender, list[tuple[int, float]]] = {}
        free = self._free
        while free and self._next_due <= now:
            client, slot = free.popleft()
            if not client.is_gone:
                due.setdefault(client, []).append((slot, self._next_due))
                self._next_due += self._interval_s
        for client, slots in due.items():
            client.send(slots)
