"""Watches of keys that begin in the past, and those that a snapshot overtakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raft_agent.api.streams import PUMP_BYTES
from raft_agent.machine.commands import Delete, Put, SendMessage
from raft_agent.machine.machine import Machine
from tests.unit.api.raw_client import RawClient, connected, with_node
from tests.unit.api.single_node import SingleNode, run, serving
from tests.unit.machine.batches import apply


def put(node: SingleNode, *keys: str, value: bytes = b"v") -> None:
    node.apply_commands([Put(key, value) for key in keys])


async def revisions(client: RawClient, count: int) -> list[int]:
    items: list[Any] = []
    while len(items) < count:
        items += await client.items()
    assert all(item[1] is None for item in items)
    return [item[2]["revision"] for item in items]


def test_a_watch_gives_the_changes_since_a_revision_and_goes_on(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        put(node, "a/1", "b", "a/2", "a/1")
        node.apply_commands([Delete("a/1")])
        await client.ask(["watch_keys", 1, "a/", True, 2])
        assert await revisions(client, 3) == [3, 4, 5]
        put(node, "b", "a/3")
        assert await revisions(client, 1) == [7]

    with_node(tmp_path, check)


def test_a_watch_of_one_key_skips_the_others(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        put(node, "a", "ab", "a")
        await client.ask(["watch_keys", 1, "a", False, 1])
        assert await revisions(client, 2) == [1, 3]

    with_node(tmp_path, check)


def test_a_watch_that_knows_more_than_this_node_waits_for_what_comes_after(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        put(node, "a")
        await client.ask(["watch_keys", 1, "a", False, 4])
        put(node, "a", "a", "a")
        assert await revisions(client, 1) == [4]
        put(node, "a")
        assert await revisions(client, 1) == [5]

    with_node(tmp_path, check)


def test_history_is_sent_as_fast_as_it_is_read_and_nothing_is_missed(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "s"
        node = SingleNode()
        for _ in range(40):
            put(node, "a", value=b"x" * (1 << 20))
        async with (
            serving(node, path) as server,
            connected(path) as client,
            connected(path) as other,
        ):
            await client.ask(["watch_keys", 1, "a", False, 1])
            await other.ask(["status", 1])
            unsent = max(item.unsent_bytes for item in server._connections)
            assert unsent <= PUMP_BYTES + (2 << 20)
            put(node, "a", "b")
            assert await revisions(client, 41) == list(range(1, 42))
            put(node, "a")
            assert await revisions(client, 1) == [43]

    run(main())


def test_a_watch_that_falls_behind_the_history_is_ended(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        for _ in range(40):
            put(node, "a", value=b"x" * (1 << 20))
        await client.ask(["watch_keys", 1, "a", False, 1])
        async with connected(tmp_path / "s") as other:
            for _ in range(80):
                put(node, "a", value=b"x" * (1 << 20))
                await other.ask(["status", 1])
        items: list[Any] = []
        while not items or items[-1][1] is None:
            items += await client.items()
        seen = [item[2]["revision"] for item in items[:-1]]
        assert seen == list(range(1, len(seen) + 1))
        assert items[-1][1]["code"] == "compacted"
        assert items[-1][1]["revision"] == node.machine.compacted_revision + 1
        assert not node.machine.watches.watches_keys

    with_node(tmp_path, check)


def adopted(changes: int, history_keep: int = 10_000) -> Machine:
    other = Machine(history_keep=history_keep)
    for number in range(changes):
        apply(other, Put("a" if number % 2 else "b", b""))
    return other


def test_a_watch_goes_on_over_a_snapshot_that_has_the_history(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        put(node, "b", "a")
        await client.ask(["watch_keys", 1, "a"])
        node.machine.adopt(adopted(6))
        assert await revisions(client, 2) == [4, 6]
        put(node, "a")
        assert await revisions(client, 1) == [7]

    with_node(tmp_path, check)


def test_a_watch_ends_when_a_snapshot_lacks_what_it_missed(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        put(node, "b", "a")
        await client.ask(["watch_keys", 1, "a"])
        node.machine.adopt(adopted(3000, history_keep=10))
        [item] = await client.items()
        assert item[1]["code"] == "compacted"

    with_node(tmp_path, check)


def test_a_watch_of_messages_goes_on_over_a_snapshot(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        await client.ask(["watch_messages", 1])
        other = SingleNode()
        other.apply_commands([SendMessage(text, "n") for text in ("one", "two")])
        node.machine.adopt(other.machine)
        texts = [item[2]["text"] for item in await client.items()]
        assert texts == ["one", "two"]

    with_node(tmp_path, check)
