"""Linearizable reads: wait until this node has seen all that was acknowledged before."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count

import msgspec

from raft_agent.api.host import Failure
from raft_agent.consensus.types import Event, Read, ReadReady

Done = Callable[[Failure | None], None]

_RETRY_S = 0.02


class _Wave(msgspec.Struct):
    """Reads that share one read index; `give_up_at` is in loop time. `lease`: the leader's lease is
    proof enough."""

    dones: list[Done]
    give_up_at: float
    lease: bool


class Barriers:
    """Reads of one turn share one question. While there is no leader, it is asked again for
    `patience_s`: an election takes less, and a read can be repeated without harm.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        feed: Callable[[Event], None],
        applied_index: Callable[[], int],
        patience_s: float,
    ) -> None:
        self._loop = loop
        self._feed = feed
        self._applied_index = applied_index
        self._patience_s = patience_s
        self._gathered: tuple[list[Done], list[Done]] = ([], [])  # by a round, by the lease
        self._asked: dict[int, _Wave] = {}
        self._ready: list[tuple[int, int, list[Done]]] = []
        self._given_up: Failure | None = None
        self._tag = count(1)  # used negated: proposals count upwards

    def add(self, done: Done, *, lease: bool = False) -> None:
        if not any(self._gathered):
            self._loop.call_soon(self._flush)
        self._gathered[lease].append(done)

    def _flush(self) -> None:
        gathered, self._gathered = self._gathered, ([], [])
        give_up_at = self._loop.time() + self._patience_s
        for lease, dones in enumerate(gathered):
            if dones:
                self._ask(_Wave(dones, give_up_at, bool(lease)))

    def _ask(self, wave: _Wave) -> None:
        if self._given_up is not None:
            _tell(wave.dones, self._given_up)
            return
        tag = -next(self._tag)
        self._asked[tag] = wave
        self._feed(Read(tag, wave.lease))

    @property
    def waiting_count(self) -> int:
        """How many reads have not been answered."""
        asked = sum(len(wave.dones) for wave in self._asked.values())
        ready = sum(len(dones) for _, _, dones in self._ready)
        return asked + ready + sum(map(len, self._gathered))

    def owns(self, tag: int) -> bool:
        return tag in self._asked

    def ready(self, answer: ReadReady) -> None:
        wave = self._asked.pop(answer.tag)
        if answer.index <= self._applied_index():
            _tell(wave.dones, None)
        else:
            heapq.heappush(self._ready, (answer.index, next(self._tag), wave.dones))

    def refused(self, tag: int, failure: Failure, *, may_pass: bool) -> None:
        """`may_pass`: an election may cure it."""
        wave = self._asked.pop(tag)
        if may_pass and wave.dones and self._loop.time() < wave.give_up_at:
            self._loop.call_later(_RETRY_S, self._ask, wave)
        else:
            _tell(wave.dones, failure)

    def applied(self, index: int) -> None:
        while self._ready and self._ready[0][0] <= index:
            _tell(heapq.heappop(self._ready)[2], None)

    def give_up(self, failure: Failure) -> None:
        """Nothing is applied here any more: no read will get its index."""
        self._given_up = failure
        self.give_up_waiting(failure)

    def give_up_waiting(self, failure: Failure) -> None:
        """Those that wait now can't be answered; the core may still answer what it was asked."""
        ready, self._ready = self._ready, []
        for _, _, dones in ready:
            _tell(dones, failure)
        for wave in self._asked.values():
            dones, wave.dones = wave.dones, []
            _tell(dones, failure)


def _tell(dones: list[Done], failure: Failure | None) -> None:
    for done in dones:
        done(failure)
