"""What clients ask in one turn of the loop is bounded: peers and timers get their share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from raft_agent.api.turn import LATE_BYTES, SHARE_S, Turn


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Client:
    """Serving or writing takes `cost_s` of the clock."""

    def __init__(self, name: str, clock: Clock, done: list[str], cost_s: float) -> None:
        self.name = name
        self.is_held = False
        self._clock = clock
        self._done = done
        self._cost_s = cost_s

    def serve(self, data: bytes) -> None:
        self._clock.now_s += self._cost_s
        self._done.append(f"{self.name} {data.decode()}")

    def hold(self) -> None:
        self.is_held = True

    def flush(self) -> None:
        self._clock.now_s += self._cost_s
        self._done.append(f"{self.name} written")


class BrokenClient(Client):
    def serve(self, data: bytes) -> None:  # noqa: ARG002
        raise RuntimeError("broken")


def in_a_loop(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        async def main() -> None:
            await test()

        asyncio.run(main())

    return run


def clients(count: int, cost_s: float) -> tuple[Turn, list[Client], list[str]]:
    clock, done = Clock(), list[str]()
    return Turn(clock), [Client(f"c{n}", clock, done, cost_s) for n in range(count)], done


@in_a_loop
async def test_what_fits_into_a_turn_is_served_at_once() -> None:
    turn, (first, second), done = clients(2, SHARE_S / 4)
    turn.serve(first, b"a")
    turn.serve(second, b"b")
    assert done == ["c0 a", "c1 b"]


@in_a_loop
async def test_what_does_not_fit_waits_until_the_loop_has_turned_to_others() -> None:
    turn, crowd, done = clients(6, SHARE_S / 2)
    for client in crowd:
        turn.serve(client, b"x")
    others: list[int] = []
    asyncio.get_running_loop().call_soon(lambda: others.append(len(done)))
    for _ in range(8):
        await asyncio.sleep(0)
    assert done == [f"c{n} x" for n in range(6)]
    assert others == [2]


@in_a_loop
async def test_each_turn_gives_clients_one_share() -> None:
    turn, crowd, done = clients(7, SHARE_S / 2)
    for client in crowd:
        turn.serve(client, b"x")
    seen = [len(done)]
    while len(done) < len(crowd):
        before = len(done)
        await asyncio.sleep(0)
        seen.append(len(done) - before)
    assert max(seen) == 2
    assert 0 in seen, "what was asked is proposed before more is served"


@in_a_loop
async def test_a_clients_bytes_and_its_end_are_served_in_their_order() -> None:
    turn, (slow, client), done = clients(2, SHARE_S)
    turn.serve(slow, b"x")
    for data in (b"a", b"b", b""):
        turn.serve(client, data)
    for _ in range(3):
        await asyncio.sleep(0)
        turn.serve(slow, b"y")
    for _ in range(20):
        await asyncio.sleep(0)
    assert [line for line in done if line.startswith("c1")] == ["c1 a", "c1 b", "c1 "]


@in_a_loop
async def test_after_a_crowd_has_been_served_a_turn_has_its_whole_share_again() -> None:
    turn, crowd, done = clients(4, SHARE_S)
    for client in crowd:
        turn.serve(client, b"x")
    for _ in range(20):
        await asyncio.sleep(0)
    done.clear()
    turn.serve(crowd[0], b"y")
    assert done == ["c0 y"]


@in_a_loop
async def test_whoever_sends_much_while_others_wait_is_not_read_from() -> None:
    turn, (slow, loud), _ = clients(2, SHARE_S)
    turn.serve(slow, b"x")
    turn.serve(loud, bytes(LATE_BYTES))
    assert not loud.is_held
    turn.serve(loud, b"x")
    assert loud.is_held
    for _ in range(20):
        await asyncio.sleep(0)
    turn.serve(slow, b"x")
    turn.serve(slow, b"x")
    assert not slow.is_held


@in_a_loop
async def test_answers_are_written_in_several_turns_too() -> None:
    turn, crowd, done = clients(5, SHARE_S / 2)
    for client in crowd:
        turn.write(client)
    await asyncio.sleep(0)
    assert done == ["c0 written", "c1 written"]
    for _ in range(3):
        await asyncio.sleep(0)
    assert done == [f"c{n} written" for n in range(5)]


@in_a_loop
async def test_a_client_whose_serving_fails_takes_nobody_else_along() -> None:
    turn, crowd, done = clients(3, SHARE_S)
    broken = BrokenClient("broken", Clock(), done, 0)
    problems: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: problems.append(str(context["exception"]))
    )
    turn.serve(crowd[0], b"x")
    for client in (crowd[1], broken, crowd[2]):
        turn.serve(client, b"x")
    for _ in range(20):
        await asyncio.sleep(0)
    assert done == ["c0 x", "c1 x", "c2 x"]
    assert problems == ["broken"]
