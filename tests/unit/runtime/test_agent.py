"""The agent as a whole, from its data directory on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import uvloop

from raft_agent.config import Config, load
from raft_agent.logs import LogContext
from raft_agent.runtime.agent import Agent
from raft_agent.storage.errors import StorageError
from tests.e2e.agents import free_ports


def config_for(directory: Path, name: str) -> Config:
    path = directory / f"{name}.toml"
    path.write_text(
        f'[server]\nnode_id = "{name}"\nlisten_addr = "127.0.0.1:{free_ports(1)[0]}"\n'
        f'data_dir = "{directory / "data"}"\nipc_socket = "{directory / "s"}"\n'
        "[cluster]\nbootstrap = true\n"
    )
    return load(path, environ={})


async def until(agent: Agent, kind: str) -> None:
    """Until an event of this kind happens."""
    followed = asyncio.Event()
    stop = agent.front.subscribe_events(lambda event: event.kind == kind and followed.set())
    await asyncio.wait_for(followed.wait(), 10)
    stop()


async def until_it_leads(agent: Agent) -> None:
    await until(agent, "leader_elected")


def test_the_data_of_another_member_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        agent = Agent(config_for(tmp_path, "node-01"), LogContext())
        await agent.start()
        await until_it_leads(agent)
        await agent.stop()
        with pytest.raises(StorageError, match=r"data of the member 'node-01'.*is 'node-02'"):
            Agent(config_for(tmp_path, "node-02"), LogContext())
        again = Agent(config_for(tmp_path, "node-01"), LogContext())
        await again.start()
        await until_it_leads(again)
        await again.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_a_new_snapshot_takes_the_place_of_one_that_can_not_be_read(tmp_path: Path) -> None:
    async def main() -> None:
        agent = Agent(config_for(tmp_path, "node-01"), LogContext())
        await agent.start()
        await until_it_leads(agent)
        while agent.machine.last_applied < agent.node.state.log.last_index:
            await asyncio.sleep(0.005)
        agent._snapshotter.take()
        await until(agent, "snapshot_taken")
        (path,) = (tmp_path / "data" / "snapshots").iterdir()
        path.unlink()
        while agent._snapshotter._task is not None:
            await asyncio.sleep(0.005)
        agent.on_snapshot_unreadable(agent.machine.last_applied, "it is gone")
        await until(agent, "snapshot_taken")
        newest = agent._store.snapshots.newest
        assert newest is not None
        assert list(agent._store.snapshots.blocks(newest.index))
        kinds = [event.kind for event in agent.front.recent_events(2)]
        assert kinds == ["snapshot_unreadable", "snapshot_taken"]
        await agent.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
