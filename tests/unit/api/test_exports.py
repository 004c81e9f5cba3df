"""Requests about exported maps, through a real socket."""

from __future__ import annotations

from pathlib import Path

from raft_agent.api import protocol
from tests.unit.api.raw_client import RawClient, with_node
from tests.unit.api.single_node import SingleNode

ADD = ["export_add", 1, "ports/", "ports", "hash", "u32", "u32", 10]


def test_an_export_is_declared_once_and_told_on_every_node(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        ((_, error, done),) = await client.ask(ADD)
        assert error is None
        assert done["index"] == 1
        ((_, error, _),) = await client.ask(ADD)
        assert error is None  # asking again is harmless
        ((_, error, _),) = await client.ask([*ADD[:6], "u64", 10])
        assert error["code"] == protocol.ErrorCode.BAD_REQUEST
        assert "export remove ports" in error["error"]
        ((_, _, listed),) = await client.ask(["export_list", 2])
        assert [info["map"] for info in listed["exports"]] == ["ports"]
        assert [what for _, what, outcome in node.audits if outcome == "done"] == [
            "export_add prefix=ports/ map=ports kind=hash key=u32 value=u32 max_entries=10"
        ] * 2

    with_node(tmp_path, check)


def test_a_follower_refuses_to_declare(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        node.leader = "node-02"
        for request in (ADD, ["export_remove", 2, "ports"]):
            ((_, error, _),) = await client.ask(request)
            assert error["code"] == protocol.ErrorCode.NOT_LEADER
            assert error["leader"] == "node-02"

    with_node(tmp_path, check)


def test_a_watch_tells_what_is_written_until_it_is_cancelled(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        await client.ask(ADD)
        ((_, error, started),) = await client.ask(["export_watch", 7, "ports"])
        assert error is None
        assert started["index"] == node.machine.last_applied
        node.export_watchers[0](protocol.ExportEvent("put", "ports/80", b"1", 0, 5))
        ((stream, _, event),) = await client.items()
        assert (stream, event["key"], event["index"]) == (7, "ports/80", 5)
        await client.ask(["cancel", 8, 7])
        assert node.export_watchers == []

    with_node(tmp_path, check)


def test_a_map_that_is_not_exported_is_refused(tmp_path: Path) -> None:
    async def check(client: RawClient, _node: SingleNode) -> None:
        for request in (
            ["export_watch", 1, "ports"],
            ["export_dump", 2, "ports"],
            ["export_remove", 3, "ports"],
        ):
            ((_, error, _),) = await client.ask(request)
            assert error["code"] == protocol.ErrorCode.KEY_NOT_FOUND

    with_node(tmp_path, check)
