"""What an agent answers to those who ask for changes of the members."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import uvloop

from raft_agent.api import protocol
from raft_agent.api.host import Failure
from raft_agent.api.protocol import ErrorCode
from raft_agent.logs import LogContext
from raft_agent.runtime.agent import Agent
from raft_agent.storage.store import StorageFailure
from tests.unit.runtime.test_agent import config_for, until_it_leads

TIMEOUT_S = 10.0


def with_leader(tmp_path: Path, check: Callable[[Agent], Coroutine[Any, Any, None]]) -> None:
    """`check(a leader alone in its cluster)`."""

    async def main() -> None:
        agent = Agent(config_for(tmp_path, "node-01"), LogContext())
        await agent.start()
        try:
            await until_it_leads(agent)
            async with asyncio.timeout(TIMEOUT_S):
                await check(agent)
        finally:
            await agent.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def asked(
    agent: Agent, request: protocol.MembershipRequest
) -> asyncio.Future[protocol.MembershipResult | Failure]:
    answer: asyncio.Future[protocol.MembershipResult | Failure]
    answer = asyncio.get_running_loop().create_future()
    agent.front.change_membership(request, answer.set_result, may_forward=True)
    return answer


def test_a_join_is_answered_when_the_disk_fails_meanwhile(tmp_path: Path) -> None:
    async def check(agent: Agent) -> None:
        dialled = asyncio.Event()
        mute = await asyncio.start_server(lambda _in, _out: dialled.set(), "127.0.0.1", 0)
        address = f"127.0.0.1:{mute.sockets[0].getsockname()[1]}"
        answer = asked(agent, protocol.Join(1, "node-02", address))
        await dialled.wait()
        agent.on_storage_failed(StorageFailure("no disk", False))
        failure = await answer
        assert isinstance(failure, Failure)
        assert failure.code is ErrorCode.STORAGE_FAILED
        mute.close()

    with_leader(tmp_path, check)


def test_a_member_is_not_moved_to_where_nobody_can_dial(tmp_path: Path) -> None:
    async def check(agent: Agent) -> None:
        before = agent.front.member_list()
        for address in ("", "nowhere", "0.0.0.0:5555", "host:0"):
            failure = await asked(agent, protocol.MemberUpdate(1, "node-01", address))
            assert isinstance(failure, Failure)
            assert failure.code is ErrorCode.BAD_REQUEST
        assert agent.front.member_list() == before

    with_leader(tmp_path, check)
