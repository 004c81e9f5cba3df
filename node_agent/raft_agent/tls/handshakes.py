"""The handshakes of connections that were accepted: in small steps, and not all of the time."""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Callable

# A step is followed by as long a time in which the loop does other things.
_PAUSE = 1.0
# Of computing, at once and then in each second, that a host may ask for: about a thousand
# handshakes, and fifty a second.
_BURST_S = 1.0
_REFILL = 0.05
# Hosts with nothing to their account are forgotten beyond this number.
_MAX_ACCOUNTS = 1024


class _Account:
    """What a host has had computed for it: `debt_s` of it is not paid off yet, as of `at`."""

    __slots__ = ("at", "debt_s")

    def __init__(self, at: float) -> None:
        self.debt_s = 0.0
        self.at = at

    def wait_s(self, now: float) -> float:
        """Until it may have more."""
        self.debt_s = max(0.0, self.debt_s - (now - self.at) * _REFILL)
        self.at = now
        return max(0.0, (self.debt_s - _BURST_S) / _REFILL)


class Handshakes:
    """Takes the handshakes of all connections that were accepted forward, one step at a time.

    A step is half a millisecond of computing. Between two of them the loop has a turn, and at least
    as long for the rest of its work, however many connections come. Hosts take turns, connections
    that are nearer their end go first, and a host that wants more than its share waits: whoever
    floods this node with connections keeps nobody waiting but himself.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._by_host: collections.OrderedDict[str, collections.deque[Callable[[], None]]] = (
            collections.OrderedDict()
        )
        self._accounts: dict[str, _Account] = {}
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._is_waiting = False  # for a host's account, so another one may come first

    def add(self, host: str, step: Callable[[], None], *, is_first: bool) -> None:
        """`step` is called once, later. `is_first`: the connection's first one, which waits for
        the others of this host.
        """
        waiting = self._by_host.setdefault(host, collections.deque())
        if is_first:
            waiting.append(step)
        else:
            waiting.appendleft(step)
        if self._is_waiting and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._is_waiting = False
            self._timer = self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._timer = None
        host, wait_s = self._next()
        if wait_s > 0:
            self._is_waiting = True
            self._timer = self._loop.call_later(wait_s, self._go_on)
            return
        self._is_waiting = False
        waiting = self._by_host[host]
        step = waiting.popleft()
        if waiting:
            self._by_host.move_to_end(host)
        else:
            del self._by_host[host]
        # Of this thread: what others do on a busy machine is not this host's.
        began_s = time.thread_time()
        try:
            step()
        finally:
            took_s = time.thread_time() - began_s
            self._account(host).debt_s += took_s
            if self._by_host and self._timer is None:
                self._timer = self._loop.call_later(took_s * _PAUSE, self._go_on)

    def _next(self) -> tuple[str, float]:
        """The host whose turn it is, and for how long even that one has to wait."""
        now = time.monotonic()
        waits = ((self._account(host).wait_s(now), host) for host in self._by_host)
        best_s, best = next(waits)
        for wait_s, host in waits:
            if best_s == 0:
                break
            if wait_s < best_s:
                best_s, best = wait_s, host
        return best, best_s

    def _account(self, host: str) -> _Account:
        account = self._accounts.get(host)
        if account is None:
            now = time.monotonic()
            if len(self._accounts) >= _MAX_ACCOUNTS:
                for other in list(self._accounts):
                    self._accounts[other].wait_s(now)
                    if not self._accounts[other].debt_s:
                        del self._accounts[other]
            account = self._accounts[host] = _Account(now)
        return account
