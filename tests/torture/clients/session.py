"""What each client has: its connection, its chance, and the book in which it notes what it does."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from raft_agent.api.client import (
    AgentNotReachable,
    Client,
    Endpoint,
    OutcomeUnknown,
    RequestFailed,
)
from tests.torture.history import Outcome, Record, Writer, now_ns

T = TypeVar("T")

TIMEOUT_S = 6.0
# Keys are left behind after this time, so that the history of each stays short enough to search.
GENERATION_S = 6.0


class Pace:
    """When the clients have to end, and how fast they go. `last` is known when all that write have
    ended: the store's revision and the last message's index, up to which watches go on."""

    def __init__(self, pause_s: float) -> None:
        self.began_ns = now_ns()
        self.ends = asyncio.Event()
        self.last: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
        self.pause_s = pause_s

    def generation(self) -> int:
        return int((now_ns() - self.began_ns) / 1e9 / GENERATION_S)

    async def pause(self, chance: random.Random, factor: float = 1.0) -> None:
        """About `factor` pauses, or less when the run ends."""
        try:
            async with asyncio.timeout(self.pause_s * factor * chance.uniform(0.2, 1.8)):
                await self.ends.wait()
        except TimeoutError:
            pass


class Session:
    """One client by itself. `kind` of the workload; `number` is unique in a run."""

    def __init__(
        self,
        kind: str,
        number: int,
        *,
        endpoints: Sequence[Endpoint],
        book: Writer,
        pace: Pace,
        chance: random.Random,
    ) -> None:
        self.kind = kind
        self.number = number
        self.pace = pace
        self.chance = chance
        self._book = book
        self._count = 0
        # Each begins at another agent; where the leader is they have to find out.
        start = number % len(endpoints)
        self.client = Client([*endpoints[start:], *endpoints[:start]], timeout_s=TIMEOUT_S)

    def fresh(self) -> str:
        """A value that nobody else ever writes."""
        self._count += 1
        return f"{self.number}.{self._count}"

    async def do(
        self,
        op: str,
        work: Callable[[], Awaitable[T]],
        *,
        key: str = "",
        args: Sequence[Any] = (),
        out: Callable[[T], Any] = lambda _: None,
        revision: Callable[[T], int] = lambda found: getattr(found, "revision", 0),
    ) -> tuple[Outcome, T | None, str]:
        """Do it and note it: how it went, what came back, and of a refusal its code. `out` is what
        the history is to hold of an answer."""
        called = now_ns()
        outcome: Outcome
        found, code = None, ""
        try:
            found = await work()
        except OutcomeUnknown as error:
            outcome, code = "unknown", str(error)[:80]
        except RequestFailed as error:
            outcome, code = "no", str(error.code)
        except AgentNotReachable as error:
            outcome, code = "no", f"unreachable: {error}"[:80]
        else:
            outcome = "ok"
        record = Record(
            self.number, self.kind, op, called, now_ns(), outcome, key, list(args), code=code
        )
        if outcome == "ok":
            record.out = out(found)  # type: ignore[arg-type]
            record.revision = revision(found) if found is not None else 0
            record.index = getattr(found, "index", 0)
        self._book.add(record)
        return outcome, found, code

    def note(self, record: Record) -> None:
        self._book.add(record)

    async def close(self) -> None:
        await self.client.close()
