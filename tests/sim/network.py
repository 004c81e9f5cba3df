"""The network between the nodes: what is delayed, lost, doubled, reordered or cut off."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.sim.clock import Clock
from tests.sim.options import NetworkOptions

Link = tuple[int, int]


class Network:
    """Nodes are numbers from 0 on; a link is (from, to).

    A connection joins two nodes and carries both links. `on_connected(a, b)` and `on_lost(a, b)`
    tell that it stands again, or is known to be gone; what a broken one had in flight is lost.
    """

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        options: NetworkOptions,
        *,
        nodes: int,
        seen: Counter[str],
        is_up: Callable[[int], bool],
        on_connected: Callable[[int, int], None],
        on_lost: Callable[[int, int], None],
    ) -> None:
        self._clock = clock
        self._random = rng.random
        self._options = options
        self._nodes = nodes
        self._seen = seen
        self._is_up = is_up
        self._on_connected = on_connected
        self._on_lost = on_lost
        self.loss = options.loss
        self.duplication = options.duplication
        self.reordering = options.reordering
        self._healed = False
        self._blocked: Counter[Link] = Counter()
        self._clogged_until_us: dict[Link, int] = {}
        self._last_arrival_us: dict[Link, int] = {}
        # Counts how often the connection was made; None while it does not stand.
        self._connection: dict[Link, int | None] = {}
        self._connections = 0
        # Counts up with each process, whose sockets die with it.
        self._boot = [0] * nodes

    # --- messages

    def send(self, link: Link, deliver: Callable[..., None], *args: Any) -> None:
        """Have `deliver(*args)` called when the message arrives, if it does."""
        options = self._options
        if self._blocked[link]:
            self._seen["message_blocked"] += 1
            return
        if self.loss and self._random() < self.loss:
            self._seen["message_lost"] += 1
            return
        self._dispatch(link, deliver, args)
        if self.duplication and self._random() < self.duplication:
            self._seen["message_duplicated"] += 1
            self._dispatch(link, deliver, args, extra_us=int(self._random() * 200_000))
        elif options.ordered and self._connection.get(_pair(link)) is None:
            self._seen["message_without_connection"] += 1

    def _dispatch(
        self, link: Link, deliver: Callable[..., None], args: tuple[Any, ...], extra_us: int = 0
    ) -> None:
        options = self._options
        now_us = self._clock.now_us
        delay_us = options.latency_us + int(self._random() * options.jitter_us) + extra_us
        clogged_until_us = self._clogged_until_us.get(link, 0)
        if clogged_until_us > now_us:
            self._seen["message_clogged"] += 1
            delay_us += clogged_until_us - now_us
        if self.reordering and self._random() < self.reordering:
            self._seen["message_reordered"] += 1
            delay_us += int(self._random() * 500_000)
        elif options.ordered:
            # A stream: nothing overtakes what was sent before.
            delay_us = max(delay_us, self._last_arrival_us.get(link, 0) - now_us)
            self._last_arrival_us[link] = now_us + delay_us
        state = self._connection.get(_pair(link)) if options.ordered else None
        self._clock.after(delay_us, self._arrive, link, state, deliver, args)

    def _arrive(
        self,
        link: Link,
        connection: int | None,
        deliver: Callable[..., None],
        args: tuple[Any, ...],
    ) -> None:
        if self._options.ordered and (
            connection is None or connection != self._connection.get(_pair(link))
        ):
            self._seen["message_died_with_connection"] += 1
            return
        deliver(*args)

    # --- connections

    def started(self, node: int) -> None:
        """A process is there and dials everybody."""
        self._boot[node] += 1
        for other in range(self._nodes):
            if other != node:
                self._connect_soon(node, other)

    def ended(self, node: int) -> None:
        """The process is gone. Who was connected hears of it soon, or much later."""
        self._boot[node] += 1
        for other in range(self._nodes):
            if other != node:
                self._break(node, other, int(self._random() ** 3 * 1_000_000))

    def _connect_soon(self, a: int, b: int) -> None:
        delay_us = 500 + int(self._random() * 40_000)
        self._clock.after(delay_us, self._connect, a, b, self._boot[a], self._boot[b])

    def _connect(self, a: int, b: int, boot_a: int, boot_b: int) -> None:
        if (boot_a, boot_b) != (self._boot[a], self._boot[b]):
            return
        if not (self._is_up(a) and self._is_up(b)):
            return
        pair = _pair((a, b))
        if self._blocked[(a, b)] or self._blocked[(b, a)] or self._connection.get(pair) is not None:
            return
        self._connections += 1
        self._connection[pair] = self._connections
        self._seen["connected"] += 1
        self._on_connected(a, b)
        self._on_connected(b, a)

    def _break(self, a: int, b: int, noticed_after_us: int) -> None:
        pair = _pair((a, b))
        if self._connection.get(pair) is None:
            return
        self._connection[pair] = None
        self._clock.after(noticed_after_us, self._notice_loss, a, b)

    def _notice_loss(self, a: int, b: int) -> None:
        # A new connection says as well that the old one is gone.
        if self._connection[_pair((a, b))] is None:
            self._on_lost(a, b)
            self._on_lost(b, a)

    # --- faults

    def block(self, links: list[Link]) -> None:
        """Nothing sent on `links` arrives. After a time-out the connection breaks too."""
        for link in links:
            self._blocked[link] += 1
            timeout_us = 300_000 + int(self._random() * 1_000_000)
            self._clock.after(timeout_us, self._timed_out, link)

    def unblock(self, links: list[Link]) -> None:
        for link in links:
            if not self._blocked[link]:
                continue  # the network was healed in the meantime
            self._blocked[link] -= 1
            if self._connection.get(_pair(link)) is None:
                self._connect_soon(*link)

    def _timed_out(self, link: Link) -> None:
        if self._blocked[link]:
            self._break(*link, 0)

    def clog(self, link: Link, duration_us: int) -> None:
        """What is sent on `link` waits until then, and arrives in one go."""
        until_us = self._clock.now_us + duration_us
        self._clogged_until_us[link] = max(self._clogged_until_us.get(link, 0), until_us)

    def reaches(self, a: int, b: int) -> bool:
        """Whether a request from `a` can get to `b` right now, and its answer back."""
        return not (self._blocked[(a, b)] or self._blocked[(b, a)])

    def set_trouble(self, loss: float, duplication: float, reordering: float) -> None:
        """For a while more goes wrong than usual. A stream hides all of it."""
        if not self._options.ordered:
            self.loss, self.duplication, self.reordering = loss, duplication, reordering

    def calm(self) -> None:
        """Back to what is usual in this run."""
        if not self._healed:
            options = self._options
            self.loss, self.duplication = options.loss, options.duplication
            self.reordering = options.reordering

    def heal(self) -> None:
        """From now on everything arrives, once and soon."""
        self._healed = True
        self.loss = self.duplication = self.reordering = 0.0
        self._clogged_until_us.clear()
        blocked = [link for link, count in self._blocked.items() if count]
        self._blocked.clear()
        for link in blocked:
            if self._connection.get(_pair(link)) is None:
                self._connect_soon(*link)


def _pair(link: Link) -> Link:
    return link if link[0] < link[1] else (link[1], link[0])
