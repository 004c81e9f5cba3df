"""Members' states compared on demand: whoever asked hears what came of it, or why nothing will."""

from __future__ import annotations

import asyncio

from raft_agent.api.host import Failure
from raft_agent.api.protocol import ErrorCode, StateCheckResult
from raft_agent.consensus.types import StateHashed
from raft_agent.runtime.states import StateChecks
from tests.unit.runtime.jumping import run
from tests.unit.runtime.leading import Leader, configuration

NOT_LEADING = Failure(ErrorCode.NOT_LEADER, "Not leader")


def begin(leader: Leader) -> tuple[StateChecks, asyncio.Future[StateCheckResult | Failure]]:
    loop = asyncio.get_running_loop()
    told: asyncio.Future[StateCheckResult | Failure] = loop.create_future()
    checks = StateChecks(leader.server.node, loop, leader.feed)
    checks.check(told.set_result, lambda: NOT_LEADING)
    return checks, told


def test_a_member_alone_agrees_with_itself() -> None:
    async def main() -> None:
        leader = Leader(configuration((1,)))
        _, told = begin(leader)
        index = leader.server.node.log.last_index
        leader.server.step(StateHashed(index, 7, 0))
        result = await told
        assert isinstance(result, StateCheckResult)
        assert (result.index, result.agreed) == (index, True)

    run(main)


def test_who_waits_while_the_node_ends_is_let_go() -> None:
    async def main() -> None:
        checks, told = begin(Leader(configuration((1, 2, 3))))
        loop = asyncio.get_running_loop()
        ended_s = loop.time()
        checks.give_up(Failure(ErrorCode.SHUTTING_DOWN, "The agent is stopping"))
        result = await told
        assert isinstance(result, Failure)
        assert result.code is ErrorCode.SHUTTING_DOWN
        assert loop.time() - ended_s < 1

    run(main)
