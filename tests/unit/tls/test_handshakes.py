"""How the handshakes of accepted connections take turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from raft_agent.tls import handshakes as module
from raft_agent.tls.handshakes import Handshakes


def run(test: Callable[[Handshakes, list[str]], None], until: int) -> list[str]:
    """The steps that `test` has added, in the order in which they were made."""
    made: list[str] = []

    async def go() -> None:
        test(Handshakes(asyncio.get_running_loop()), made)
        while len(made) < until:
            await asyncio.sleep(0)

    asyncio.run(go())
    return made


def test_a_step_is_made_in_a_turn_of_its_own() -> None:
    turns: list[int] = []

    async def go() -> None:
        turn = 0
        handshakes = Handshakes(asyncio.get_running_loop())
        for _ in range(5):
            handshakes.add("a", lambda: turns.append(turn), is_first=True)
        assert turns == []
        while len(turns) < 5:
            await asyncio.sleep(0)
            turn += 1

    asyncio.run(go())
    assert len(set(turns)) == 5


def test_hosts_take_turns() -> None:
    def add(handshakes: Handshakes, made: list[str]) -> None:
        for name in ("a1", "a2", "a3", "b1", "c1", "b2"):
            handshakes.add(name[0], lambda name=name: made.append(name), is_first=True)  # type: ignore[misc]

    assert run(add, 6) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_connections_that_are_nearer_their_end_go_first() -> None:
    def add(handshakes: Handshakes, made: list[str]) -> None:
        handshakes.add("a", lambda: made.append("first step"), is_first=True)
        handshakes.add("a", lambda: made.append("second step"), is_first=False)

    assert run(add, 2) == ["second step", "first step"]


def test_a_step_that_fails_stops_no_others() -> None:
    def fail() -> None:
        raise ValueError("a bug")

    def add(handshakes: Handshakes, made: list[str]) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: made.append("told"))
        handshakes.add("a", fail, is_first=True)
        handshakes.add("a", lambda: made.append("the other"), is_first=True)

    assert run(add, 2) == ["told", "the other"]


def test_the_loop_has_as_much_time_for_other_things(monkeypatch: pytest.MonkeyPatch) -> None:
    delays: list[float] = []
    now = iter(range(100))
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(now))

    async def go() -> None:
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        class Loop:
            call_soon = loop.call_soon

            @staticmethod
            def call_later(delay_s: float, step: Callable[[], None]) -> None:
                delays.append(delay_s)
                loop.call_soon(step)

        handshakes = Handshakes(Loop())  # type: ignore[arg-type]
        handshakes.add("a", lambda: None, is_first=True)
        handshakes.add("a", done.set, is_first=True)
        await done.wait()

    asyncio.run(go())
    assert delays == [1.0]  # each step took 1 s
