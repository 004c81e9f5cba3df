"""Watches and followed events, pushed through the socket."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from raft_agent import wire
from raft_agent.api import protocol, streams
from raft_agent.machine.commands import Put, SendMessage
from tests.unit.api.raw_client import RawClient, connected, with_node
from tests.unit.api.single_node import SingleNode, run, serving


def say(node: SingleNode, *texts: str) -> None:
    node.apply_commands([SendMessage(text, "n") for text in texts])


def put(node: SingleNode, *keys: str, value: bytes = b"v") -> None:
    node.apply_commands([Put(key, value) for key in keys])


async def texts(client: RawClient, count: int) -> list[str]:
    items: list[Any] = []
    while len(items) < count:
        items += await client.items()
    assert all(item[1] is None for item in items)
    return [item[2]["text"] for item in items]


def test_a_watch_of_a_key_pushes_its_changes_one_frame_per_batch(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        put(node, "k")
        assert await client.ask(["watch_keys", 9, "k"]) == [[9, None, {"index": 1, "revision": 1}]]
        async with connected(tmp_path / "s") as writer:
            await writer.ask(["put", 1, "k", b"two"], ["put", 2, "other", b""], ["delete", 3, "k"])
        frame = await client.frame()
        assert frame.type == wire.FrameType.CLIENT_PUSH
        replies = protocol.REPLIES_DECODER.decode(frame.body)
        assert [reply.id for reply in replies] == [9, 9]
        events = [
            protocol.msgspec.msgpack.decode(reply.result, type=protocol.KeyEvent)
            for reply in replies
        ]
        assert events == [
            protocol.KeyEvent("put", "k", b"two", 2, 2),
            protocol.KeyEvent("delete", "k", b"", 4, 4),
        ]

    with_node(tmp_path, check)


def test_a_watch_of_a_prefix_pushes_all_keys_below_it(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        await client.ask(["watch_keys", 1, "a/", True], ["watch_keys", 2, "a/1"])
        put(node, "a/1", "b", "a/2")
        items = await client.items()
        assert sorted((item[0], item[2]["key"]) for item in items) == [
            (1, "a/1"),
            (1, "a/2"),
            (2, "a/1"),
        ]

    with_node(tmp_path, check)


def test_the_first_reply_of_a_stream_comes_before_its_items(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        say(node, "old")
        client.send(["watch_messages", 1, 0])
        first = await client.frame()
        assert first.type == wire.FrameType.CLIENT_REPLY
        assert await texts(client, 1) == ["old"]

    with_node(tmp_path, check)


def test_a_watch_of_messages_starts_where_it_is_told(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        say(node, "one", "two", "three")
        assert (await client.ask(["watch_messages", 1, 2]))[0][2] == {"index": 2}
        assert await texts(client, 1) == ["three"]
        async with connected(tmp_path / "s") as fresh:
            assert (await fresh.ask(["watch_messages", 1]))[0][2] == {"index": 3}
            say(node, "four")
            assert await texts(fresh, 1) == ["four"]
        assert await texts(client, 1) == ["four"]

    with_node(tmp_path, check)


def test_a_watch_that_knows_more_than_this_node_waits_for_what_comes_after(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        assert (await client.ask(["watch_messages", 1, 2]))[0][2] == {"index": 2}
        say(node, "known", "known, too", "new")
        assert await texts(client, 1) == ["new"]

    with_node(tmp_path, check)


def test_a_watch_says_from_where_on_it_misses_nothing(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        say(node, *(str(number) for number in range(8)))
        assert (await client.ask(["watch_messages", 1, 0]))[0][2] == {"index": 3}
        assert await texts(client, 5) == ["3", "4", "5", "6", "7"]

    with_node(tmp_path, check, SingleNode(messages_keep=5))


def test_old_messages_are_sent_as_fast_as_they_are_read(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        for number in range(100):
            say(node, f"{number:03}" + "x" * (1 << 20))
        await client.ask(["watch_messages", 1, 0])
        async with connected(tmp_path / "s") as other:  # the watcher has read nothing yet
            assert (await other.ask(["status", 1]))[0][1] is None
        connections = list(node_connections[0])
        assert max(item.unsent_bytes for item in connections) <= streams.PUMP_BYTES + (2 << 20)
        assert [text[:3] for text in await texts(client, 100)] == [
            f"{number:03}" for number in range(100)
        ]
        say(node, "new")
        assert await texts(client, 1) == ["new"]

    node_connections: list[Any] = []

    async def main() -> None:
        path = tmp_path / "s"
        node = SingleNode()
        async with serving(node, path) as server, connected(path) as client:
            node_connections.append(server._connections)
            await check(client, node)

    run(main())


def test_a_watch_that_falls_behind_what_is_kept_is_ended_and_says_so(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        await client.ask(["watch_messages", 1])
        async with connected(tmp_path / "s") as other:
            for number in range(40):
                say(node, f"{number:02}" + "x" * (1 << 20))
                await other.ask(["status", 1])
        items: list[Any] = []
        while not items or items[-1][1] is None:
            items += await client.items()
        seen = [item[2]["index"] for item in items[:-1]]
        assert seen == list(range(1, len(seen) + 1))
        assert items[-1][1]["code"] == "busy"
        assert f"messages after index {seen[-1]} are gone" in items[-1][1]["error"]
        assert not node.machine.watches.watches_messages
        assert (await client.ask(["watch_messages", 1]))[0][2] == {"index": 40}

    with_node(tmp_path, check, SingleNode(messages_keep=10))


def test_events_are_followed_from_the_newest_ones_on(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        for kind in ("one", "two", "three"):
            node.happen(kind)
        await client.ask(["events", 1, 2, True])
        assert await texts(client, 2) == ["two", "three"]
        node.happen("four")
        assert await texts(client, 1) == ["four"]

    with_node(tmp_path, check)


def test_nothing_of_a_stream_follows_the_reply_to_its_cancel(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        await client.ask(["watch_keys", 1, "k"], ["watch_keys", 2, "k"])
        # Served in one turn: the change is queued for both when the first is cancelled.
        turn = asyncio.get_running_loop().create_future()
        apply_waiting = node.apply_waiting
        node.apply_waiting = lambda: turn.set_result(None)  # type: ignore[method-assign]
        client.send(["put", 3, "k", b"v"], ["cancel", 4, 1])
        await turn
        apply_waiting()
        replies: dict[int, Any] = {}
        while 3 not in replies or 2 not in replies:
            for item in await client.items():
                assert item[0] != 1
                replies[item[0]] = item
        assert replies[4] == [4, None, None]
        assert (await client.ask(["cancel", 5, 1]))[0] == [5, None, None]

    with_node(tmp_path, check)


def test_queued_items_of_a_cancelled_stream_are_dropped_and_not_counted(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "s"
        node = SingleNode()
        async with serving(node, path) as server, connected(path) as client:
            await client.ask(["watch_keys", 1, "k"], ["watch_keys", 2, "k"])
            (connection,) = server._connections
            channel = connection._channels[0]
            put(node, "k")
            channel.streams[1].stop()
            channel.forget_pushes(1)
            assert [item[0] for item in await client.items()] == [2]
            assert connection.unsent_bytes == 0

    run(main())


def test_an_id_of_a_stream_that_stands_is_not_given_away(tmp_path: Path) -> None:
    async def check(client: RawClient, _node: SingleNode) -> None:
        await client.ask(["watch_keys", 1, "k"])
        assert (await client.ask(["watch_messages", 1]))[0][1]["code"] == "bad_request"
        await client.ask(["cancel", 2, 1])
        assert (await client.ask(["watch_messages", 1]))[0][1] is None

    with_node(tmp_path, check)


def test_streams_of_one_connection_are_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "MAX_STREAMS", 3)

    async def check(client: RawClient, _node: SingleNode) -> None:
        replies = await client.ask(*(["watch_keys", number, "k"] for number in range(4)))
        assert [reply[1] and reply[1]["code"] for reply in replies] == [None, None, None, "busy"]

    with_node(tmp_path, check)


def test_watches_in_json_have_their_values_in_base64(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        await client.ask(["watch_keys", 1, "", True], as_json=True)
        async with connected(tmp_path / "s") as binary:
            await binary.ask(["watch_keys", 1, "", True])
            put(node, "k", value=b"\x00\xff")
            assert (await binary.items())[0][2]["value"] == b"\x00\xff"
        assert (await client.items())[0][2]["value"] == "AP8="

    with_node(tmp_path, check)
