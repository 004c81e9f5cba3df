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


class Clock:
    """Time that only the test moves; what is to be done later is done at once, and noted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.computed = 0.0
        self.delays: list[float] = []
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(module.time, "thread_time", lambda: self.computed)

    def call_soon(self, step: Callable[[], None]) -> asyncio.Handle:
        return asyncio.get_running_loop().call_soon(step)

    def call_later(self, delay_s: float, step: Callable[[], None]) -> asyncio.Handle:
        self.delays.append(delay_s)
        self.now += delay_s
        return asyncio.get_running_loop().call_soon(step)

    def run(self, hosts: str, step_s: float) -> list[str]:
        """A first step of each of these hosts, which takes so long; the order they were made in."""
        made: list[str] = []

        def step(host: str) -> None:
            made.append(host)
            self.computed += step_s

        async def go() -> None:
            handshakes = Handshakes(self)  # type: ignore[arg-type]
            for host in hosts:
                handshakes.add(host, lambda host=host: step(host), is_first=True)  # type: ignore[misc]
            while len(made) < len(hosts):
                await asyncio.sleep(0)

        asyncio.run(go())
        return made


def test_the_loop_has_as_much_time_for_other_things(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    clock.run("aaa", 0.1)
    assert clock.delays == pytest.approx([0.1, 0.1])


def test_a_host_that_has_used_up_its_share_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second of computing at once, and a twentieth of the time from then on."""
    clock = Clock(monkeypatch)
    clock.run("a" * 40, 0.1)
    assert clock.now == pytest.approx((40 * 0.1 - 1.0) / 0.05, rel=0.05)


def test_others_do_not_wait_for_a_host_that_has_used_up_its_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    made = clock.run("a" * 20 + "b" * 5, 0.2)
    assert made[:10] == list("ababababab")
    assert made[10:] == ["a"] * 15


def test_a_host_that_comes_while_another_one_waits_is_served_at_once() -> None:
    made: list[str] = []

    async def go() -> None:
        handshakes = Handshakes(asyncio.get_running_loop())
        handshakes._account("a").debt_s = 1000.0
        handshakes.add("a", lambda: made.append("a"), is_first=True)
        while not handshakes._is_waiting:
            await asyncio.sleep(0)
        handshakes.add("b", lambda: made.append("b"), is_first=True)
        while not made:
            await asyncio.sleep(0)

    asyncio.run(go())
    assert made == ["b"]


def test_accounts_of_hosts_that_owe_nothing_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_ACCOUNTS", 3)

    async def go() -> None:
        handshakes = Handshakes(asyncio.get_running_loop())
        handshakes._account("a").debt_s = 1000.0
        for number in range(10):
            handshakes._account(str(number))
        assert len(handshakes._accounts) <= 4
        assert handshakes._account("a").debt_s > 999

    asyncio.run(go())
