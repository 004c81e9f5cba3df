"""Drives engines of the operator through a world, call by call."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from raft_operator.engine import IDLE_S, WORKING_S, Engine
from raft_operator.nodes import Nodes
from tests.unit.kubernetes.world import KEY, World, WorldKube
from tests.unit.kubernetes.world_agents import WorldAgents, WorldCredentials

T = TypeVar("T")


def make_engine(world: World) -> Engine:
    """An operator that has just started, and remembers nothing."""
    kube = WorldKube(world)

    async def sleep(_seconds: float) -> None:
        world.raft.settle()

    return Engine(
        KEY,
        kube=kube,
        credentials=WorldCredentials(kube),
        connect=lambda _files: WorldAgents(world.raft),
        nodes=Nodes(kube, world.clock),
        clock=world.clock,
        sleep=sleep,
    )


class Turn:
    """One turn of an engine, which goes on from call to call. `pause_s` once it has ended."""

    def __init__(self, engine: Engine) -> None:
        self._coroutine: Coroutine[Any, None, float] = engine.turn()
        self.pause_s: float | None = None

    def go_on(self) -> bool:
        """Up to the next call; False when there is none any more."""
        try:
            self._coroutine.send(None)
        except StopIteration as end:
            self.pause_s = end.value
            return False
        return True

    def cut_off(self) -> None:
        """The operator is killed before its next call."""
        self._coroutine.close()

    def finish(self) -> float:
        while self.go_on():
            pass
        assert self.pause_s is not None
        return self.pause_s


def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """What it comes to when nobody comes between."""
    while True:
        try:
            coroutine.send(None)
        except StopIteration as end:
            found: T = end.value
            return found


def run_until(
    world: World,
    engine: Engine,
    is_done: Callable[[], bool],
    *,
    turns: int = 300,
    wait_s: float = 0.0,
) -> int:
    """Turn after turn, until something is so; how many turns that took. Fails when it is not so
    after `turns`. Between two of them as much time goes by as the engine waits, and where it does
    wait at least `wait_s`."""
    for count in range(turns):
        if is_done():
            return count
        pause_s = Turn(engine).finish()
        world.tick(min(pause_s, 10.0) if pause_s < WORKING_S else max(min(pause_s, 10.0), wait_s))
    conditions = world.resource.get("status", {}).get("conditions", [])
    told = [f"{c['type']} {c['reason']}: {c['message']}" for c in conditions]
    raise AssertionError(f"not so after {turns} turns: {world.differences()}; {told}")


def settle(world: World, engine: Engine, turns: int = 300, wait_s: float = 0.0) -> int:
    """Until all is as the spec says, and the engine has nothing to do."""
    took = run_until(world, engine, lambda: not world.differences(), turns=turns, wait_s=wait_s)
    for _ in range(turns):
        pause_s = Turn(engine).finish()
        if pause_s == IDLE_S:
            return took
        world.tick(pause_s)
    raise AssertionError("the engine never comes to rest")
