"""Survivors of a recovery come in again, or people hear why one can't."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from raft_agent.api.host import Failure
from raft_agent.api.protocol import ErrorCode
from raft_agent.consensus.types import Generation
from raft_agent.runtime.rescue import Gatherer
from tests.unit.runtime.jumping import run
from tests.unit.runtime.leading import Leader, configuration, hello, member

TOO_OLD = Failure(ErrorCode.REFUSED, "node-02 runs raft-agent 0.0.1, which knows version 1")


def leader_that_awaits_2() -> Leader:
    generation = Generation(7, (0,), (member(2),))
    leader = Leader(msgspec.structs.replace(configuration((1,)), generation=generation))
    leader.network.answers[member(2).address] = hello(2)
    return leader


def gatherer(leader: Leader, told: asyncio.Queue[tuple[str, dict[str, Any]]]) -> Gatherer:
    return Gatherer(
        node=leader.server.node,
        memberships=leader.memberships,
        transport=leader.network,  # type: ignore[arg-type]
        loop=asyncio.get_running_loop(),
        tell=lambda kind, **facts: told.put_nowait((kind, facts)),
    )


def test_a_survivor_that_is_empty_by_now_is_taken_in() -> None:
    async def main() -> None:
        told: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
        leader = leader_that_awaits_2()
        gathering = gatherer(leader, told)
        gathering.look()
        kind, facts = await told.get()
        assert (kind, facts["name"]) == ("survivor_taken_in", "node-02")
        assert leader.configuration.learners == (2,)
        gathering.stop()

    run(main)


def test_why_a_survivor_can_not_come_in_is_said_once() -> None:
    async def main() -> None:
        told: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
        leader = leader_that_awaits_2()
        leader.joiner_problem = lambda _: TOO_OLD  # type: ignore[method-assign]
        gathering = gatherer(leader, told)
        gathering.look()
        kind, facts = await told.get()
        assert (kind, facts["reason"]) == ("survivor_refused", TOO_OLD.error)
        await asyncio.sleep(60)
        assert told.empty()
        del leader.joiner_problem
        assert (await told.get())[0] == "survivor_taken_in"
        gathering.stop()

    run(main)
