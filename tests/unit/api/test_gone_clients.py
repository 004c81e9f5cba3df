"""A client that has gone costs nothing from then on, whatever it still waited for."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from raft_agent.api.channel import Channel
from raft_agent.api.host import Failure
from raft_agent.api.server import ApiServer
from tests.unit.api.raw_client import RawClient, connected, request_frame
from tests.unit.api.single_node import SingleNode, run, serving

Barrier = Callable[[Failure | None], None]


class WaitingNode(SingleNode):
    """Its read barriers wait for the test."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Barrier] = []
        self.backups_begun = 0

    def read_barrier(self, done: Barrier, *, lease: bool = False) -> None:
        self.lease_barriers += lease
        self.waiting.append(done)

    def begin_backup(self) -> Any:
        self.backups_begun += 1
        return super().begin_backup()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0)


def with_waiting_node(
    tmp_path: Path,
    check: Callable[[WaitingNode, ApiServer, RawClient], Coroutine[Any, Any, None]],
) -> None:
    """With one key in its state."""

    async def main() -> None:
        node = WaitingNode()
        async with (
            serving(node, tmp_path / "s") as server,
            connected(tmp_path / "s") as client,
        ):
            await client.ask(["put", 1, "k", b"v"])
            await check(node, server, client)

    run(main())


async def ask_and_leave(path: Path, node: WaitingNode, server: ApiServer, *asked: Any) -> Channel:
    """A client asks, and is gone before it is answered; its channel at the agent."""
    others = set(server._connections)
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(str(path))
    client.sendall(request_frame([["status", 99], *asked]))
    await until(lambda: node.waiting)
    # An end with something unread is a reset, as TLS and TCP give it; without, only one side ends.
    await until(lambda: select.select([client], [], [], 0)[0])
    ((channel,),) = (found._channels for found in server._connections - others)
    client.close()
    await until(lambda: server._connections == others)
    return channel


def test_a_backup_whose_client_is_gone_before_its_barrier_does_not_begin(tmp_path: Path) -> None:
    async def check(node: WaitingNode, server: ApiServer, _client: RawClient) -> None:
        await ask_and_leave(tmp_path / "s", node, server, ["snapshot_save", 1])
        node.waiting.pop()(None)
        assert node.backups_begun == 0
        # Who asked for all of the state is in the audit all the same.
        assert [what for _, what, _ in node.audits] == ["snapshot_save"]

    with_waiting_node(tmp_path, check)


def test_a_backup_whose_client_has_closed_its_side_before_its_barrier_is_refused(
    tmp_path: Path,
) -> None:
    """Its connection would be closed with the first piece: an end of its side ends all streams."""

    async def check(node: WaitingNode, server: ApiServer, client: RawClient) -> None:
        client.send(["snapshot_save", 2])
        client.writer.write_eof()
        await until(lambda: node.waiting)
        await until(lambda: all(found.got_eof for found in server._connections))
        node.waiting.pop()(None)
        ((_, error, _),) = await client.items()
        assert error["code"] == "refused"
        assert "keep the connection open" in error["hint"].lower()
        assert await client.closed()
        assert node.backups_begun == 0

    with_waiting_node(tmp_path, check)


def test_a_backup_whose_client_goes_in_the_turn_in_which_it_begins_lets_go_of_the_state(
    tmp_path: Path,
) -> None:
    async def check(node: WaitingNode, server: ApiServer, client: RawClient) -> None:
        node.machine.keys_at_once = 0  # so that it is read in parts, and changes cost meanwhile
        client.send(["snapshot_save", 2])
        await until(lambda: node.waiting)
        node.waiting.pop()(None)
        assert len(node.machine._views) == 1
        for connection in list(server._connections):
            connection.abort()
        await until(lambda: not server._connections)
        await asyncio.sleep(0)
        assert not node.machine._views

    with_waiting_node(tmp_path, check)


def test_nothing_is_kept_for_a_client_that_is_gone(tmp_path: Path) -> None:
    async def check(node: WaitingNode, server: ApiServer, _client: RawClient) -> None:
        channel = await ask_and_leave(tmp_path / "s", node, server, ["get", 1, "k"])
        channel.push(7, b"piece", 5)
        channel.reply(8, b"result", 6)
        channel.answer([(9, None, None), (10, None, None)])
        assert (channel._pushes.items, channel._replies.items) == ([], [])
        assert (channel._pushes.size, channel._replies.size) == (0, 0)

    with_waiting_node(tmp_path, check)


def test_a_read_of_a_client_that_is_gone_is_not_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing would hold it up: what a client leaves unread is not counted once it is gone."""

    async def check(node: WaitingNode, server: ApiServer, _client: RawClient) -> None:
        listed: list[object] = []
        read = node.machine.list

        def counted(*asked: Any, **limits: Any) -> Any:
            listed.append(asked)
            return read(*asked, **limits)

        monkeypatch.setattr(node.machine, "list", counted)
        await ask_and_leave(tmp_path / "s", node, server, ["list", 1, ""], ["list", 2, ""])
        node.waiting.pop()(None)
        assert listed == []

    with_waiting_node(tmp_path, check)
