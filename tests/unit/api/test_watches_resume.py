"""Watches of the asyncio client go on wherever they can."""

from __future__ import annotations

import asyncio
from pathlib import Path

from raft_agent.api.client import Client
from tests.unit.api.single_node import SingleNode, run, serving


def test_a_watch_goes_on_to_the_next_agent_when_one_ends_in_that_moment(tmp_path: Path) -> None:
    """It takes the connection and is gone before it answers, as a process that is killed."""

    async def main() -> None:
        taken = asyncio.Event()

        async def vanish(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            taken.set()
            writer.transport.abort()

        gone = tmp_path / "gone.sock"
        dying = await asyncio.start_unix_server(vanish, gone)
        host = SingleNode()
        async with (
            serving(host, tmp_path / "there.sock"),
            Client([gone, tmp_path / "there.sock"]) as client,
            client.watch_messages() as watch,
        ):
            assert taken.is_set()
            await client.send("after all")
            assert (await anext(watch)).text == "after all"
        dying.close()

    run(main())
