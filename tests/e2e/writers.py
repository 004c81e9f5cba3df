"""Clients that write without a pause while the cluster changes, and note what was answered when."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import uvloop

from raft_agent.api.client import Client, Endpoint

CLIENT_TIMEOUT_S = 10.0


class Writers:
    """`agents` by node name. `acks` holds (when it was acknowledged in seconds of the monotonic
    clock, key). `errors` are those that no retry within CLIENT_TIMEOUT_S cured. `pause_s`: how long
    each client rests after a write.
    """

    def __init__(
        self, agents: Mapping[str, Path | Endpoint], clients: int, *, pause_s: float = 0.0
    ) -> None:
        self._agents = dict(agents)
        self._clients = clients
        self._pause_s = pause_s
        self.acks: list[tuple[float, str]] = []
        self.errors: list[str] = []
        self._ends = False

    def longest_gap_s(self) -> float:
        """The longest time in which no write of anybody was acknowledged."""
        return self._longest_gap()[0]

    def words(self) -> str:
        """What became of the writes, with the time of day for a look into logs."""
        gap_s, began = self._longest_gap()
        at = time.gmtime(time.time() - (time.monotonic() - began))
        since = time.strftime("%H:%M:%S", at)
        return f"{len(self.acks)} writes; longest gap {gap_s:.3f} s, from {since} UTC on"

    def _longest_gap(self) -> tuple[float, float]:
        """How long, and when it began."""
        times = sorted(at for at, _ in self.acks)
        return max(((b - a, a) for a, b in itertools.pairwise(times)), default=(0.0, 0.0))

    @contextmanager
    def writing(self) -> Iterator[Writers]:
        """All clients write within this block."""
        thread = threading.Thread(target=self._run, name="writers")
        thread.start()
        try:
            yield self
        finally:
            self._ends = True
            thread.join()

    def _run(self) -> None:
        async def run() -> None:
            await asyncio.gather(*(self._write(number) for number in range(self._clients)))

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run())

    async def _write(self, number: int) -> None:
        count = 0
        async with Client(self._agents, timeout_s=CLIENT_TIMEOUT_S) as client:
            while not self._ends:
                count += 1
                key = f"w{number}-{count}"
                try:
                    await client.put(key, key.encode())
                except Exception as error:
                    self.errors.append(f"{key}: {error!r}")
                else:
                    self.acks.append((time.monotonic(), key))
                if self._pause_s:
                    await asyncio.sleep(self._pause_s)
