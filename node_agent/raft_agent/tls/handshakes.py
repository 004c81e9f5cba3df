"""The handshakes of connections that were accepted: in small steps, and not all of the time."""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Callable

# A step is followed by as long a time in which the loop does other things.
_SHARE = 0.5


class Handshakes:
    """Takes the handshakes of all connections that were accepted forward, one step at a time.

    A step is half a millisecond of computing. Between two of them the loop has a turn, and at least
    as long for the rest of its work, however many connections come. Hosts take turns, and
    connections that are nearer their end go first: whoever floods this node with connections keeps
    nobody waiting but himself.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._by_host: collections.OrderedDict[str, collections.deque[Callable[[], None]]] = (
            collections.OrderedDict()
        )
        self._is_due = False

    def add(self, host: str, step: Callable[[], None], *, is_first: bool) -> None:
        """`step` is called once, later. `is_first`: the connection's first one, which waits for
        the others of this host.
        """
        waiting = self._by_host.setdefault(host, collections.deque())
        if is_first:
            waiting.append(step)
        else:
            waiting.appendleft(step)
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        host, waiting = next(iter(self._by_host.items()))
        step = waiting.popleft()
        if waiting:
            self._by_host.move_to_end(host)
        else:
            del self._by_host[host]
        began = time.perf_counter()
        try:
            step()
        finally:
            if self._by_host:
                took_s = time.perf_counter() - began
                self._loop.call_later(took_s * (1 / _SHARE - 1), self._go_on)
            else:
                self._is_due = False
