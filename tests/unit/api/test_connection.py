"""One client's connection: frames, limits, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path
from typing import Any

import pytest
import uvloop

from raft_agent import wire
from raft_agent.api import connection, protocol
from raft_agent.api.client import SyncClient
from raft_agent.machine.commands import Put
from tests.unit.api.raw_client import (
    TIMEOUT_S,
    RawClient,
    connected,
    request_frame,
    with_node,
)
from tests.unit.api.single_node import SingleNode, run, serving
from tests.unit.cli.served import serving as serving_in_a_thread


def test_the_replies_of_one_turn_come_in_one_frame(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        client.send(*(["put", number, f"k{number}", b"v"] for number in range(500)))
        client.send(*(["send", number, "hi"] for number in range(500, 1000)))
        frame = await client.frame()
        assert frame.type == wire.FrameType.CLIENT_REPLY
        assert frame.count == 1000
        assert node.batches == 1

    with_node(tmp_path, check)


def test_replies_come_in_the_order_in_which_they_are_ready(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        node.hold_back = True
        client.send(["put", 1, "k", b"v"])
        client.send(["status", 2])
        assert [item[0] for item in await client.items()] == [2]
        node.apply_waiting()
        assert [item[0] for item in await client.items()] == [1]

    with_node(tmp_path, check)


def test_frames_may_arrive_byte_by_byte(tmp_path: Path) -> None:
    async def check(client: RawClient, _node: SingleNode) -> None:
        for byte in request_frame([["put", 1, "k", b"v"]]):
            client.writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert (await client.items())[0][1] is None

    with_node(tmp_path, check)


def test_a_checksum_is_optional_but_a_wrong_one_is_not(tmp_path: Path) -> None:
    frame = request_frame([["status", 1]])

    async def check(client: RawClient, _node: SingleNode) -> None:
        client.writer.write(frame[:12] + bytes(4) + frame[16:])
        assert (await client.items())[0][0] == 1
        client.writer.write(frame[:12] + b"\x01\x02\x03\x04" + frame[16:])
        assert await client.closed()

    with_node(tmp_path, check)


def test_a_reply_has_the_right_checksum(tmp_path: Path) -> None:
    async def check(client: RawClient, _node: SingleNode) -> None:
        client.send(["status", 1])
        data = await client.reader.read(1 << 16)
        assert data[12:16] != bytes(4)
        strict = wire.FrameReader(frozenset({33}))
        assert len(strict.feed(data)) == 1

    with_node(tmp_path, check)


def test_a_client_that_half_closes_still_gets_its_answers(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        node.hold_back = True
        client.send(["watch_messages", 1], ["put", 2, "k", b"v"], ["status", 3])
        client.writer.write_eof()
        assert sorted(item[0] for item in await client.items()) == [1, 3]
        node.apply_waiting()
        assert [item[0] for item in await client.items()] == [2]
        assert await client.closed()
        assert not node.machine.watches.watches_messages

    with_node(tmp_path, check)


def test_a_client_that_goes_leaves_nothing_behind(tmp_path: Path) -> None:
    async def check(_client: RawClient, node: SingleNode) -> None:
        node.hold_back = True
        async with connected(tmp_path / "s") as other:
            await other.ask(["watch_keys", 1, "k"], ["watch_messages", 2], ["events", 3, 0, True])
            other.send(["put", 4, "k", b"v"], ["get", 5, "k"])
            await other.items()
        while node.machine.watches.watches_keys:
            await asyncio.sleep(0)
        assert not node.machine.watches.watches_messages
        assert node._subscribers == []
        node.apply_waiting()  # the answer finds nobody
        assert node.machine.last_applied == 1

    with_node(tmp_path, check)


def test_more_requests_in_flight_than_allowed_are_refused_and_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "MAX_IN_FLIGHT", 10)

    async def check(client: RawClient, node: SingleNode) -> None:
        node.hold_back = True
        client.send(*(["put", number, "k", b"v"] for number in range(12)))
        refused = await client.items()
        assert [(item[0], item[1]["code"]) for item in refused] == [(10, "busy"), (11, "busy")]
        node.apply_waiting()
        assert len(await client.items()) == 10
        assert node.machine.last_applied == 10

    with_node(tmp_path, check)


def fill(node: SingleNode, keys: int, value_bytes: int) -> None:
    for number in range(keys):
        node.apply_commands([Put(f"k{number:03}", bytes(value_bytes))])


def test_a_client_that_reads_gets_more_than_the_limits_hold(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        fill(node, 20, 4 << 20)
        for number in range(20):
            client.send(["get", number, f"k{number:03}", "stale"])
            reply = (await client.items())[0]
            assert len(reply[2]["value"]) == 4 << 20

    with_node(tmp_path, check)


def test_reads_of_a_client_that_lets_too_much_wait_are_refused(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        fill(node, 1, 8 << 20)
        client.send(*(["get", number, "k000", "stale"] for number in range(40)))
        async with connected(tmp_path / "s") as other:
            assert (await other.ask(["status", 1]))[0][1] is None
        replies: list[Any] = []
        while len(replies) < 40:
            replies += await client.items()
        served = [reply for reply in replies if reply[1] is None]
        refused = [reply for reply in replies if reply[1] is not None]
        assert len(served) * (8 << 20) <= (32 << 20) + (8 << 20)
        assert {reply[1]["code"] for reply in refused} == {"busy"}
        assert (await client.ask(["get", 1, "k000"]))[0][1] is None

    with_node(tmp_path, check)


def test_a_client_that_reads_nothing_is_not_read_from_either(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "s"
        node = SingleNode()
        fill(node, 1, 1 << 20)
        frame = request_frame([["get", 1, "k000", "stale"]])
        loop = asyncio.get_running_loop()
        async with serving(node, path) as server, connected(path) as other:
            await other.ask(["status", 1])
            before = set(server._connections)
            with socket.socket(socket.AF_UNIX) as greedy:
                greedy.connect(str(path))
                greedy.setblocking(False)
                while not server._connections - before:
                    await asyncio.sleep(0)
                (theirs,) = server._connections - before
                sent = 0
                while not theirs._reading_paused:
                    sent += greedy.send(frame)
                    await asyncio.sleep(0)
                unsent = theirs.unsent_bytes
                for number in range(20):
                    sent += greedy.send(frame)
                    assert (await other.ask(["status", number]))[0][1] is None
                    assert theirs.unsent_bytes == unsent
                assert unsent < connection.PAUSE_READING_BYTES + (2 << 20)
                reader, received = wire.FrameReader(frozenset({33})), 0
                while received < sent // len(frame):
                    for item in reader.feed(await loop.sock_recv(greedy, 1 << 20)):
                        received += item.count

    run(main())


def test_a_watcher_that_does_not_read_is_dropped_with_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        async with connected(tmp_path / "s") as lazy:
            await lazy.ask(["events", 1, 0, True])
            for _ in range(9):
                node.happen("x" * (8 << 20))
            assert not node._subscribers
        assert (await client.ask(["status", 1]))[0][1] is None

    with caplog.at_level(logging.WARNING):
        with_node(tmp_path, check)
    assert len(caplog.records) == 1
    assert "it left about" in caplog.text


def test_an_answer_that_fits_no_frame_is_an_error_and_not_the_end(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        # In JSON each of these characters becomes six.
        for _ in range(6):
            await client.ask(["send", 1, "\x01" * (1 << 20)])
        client.send(["messages", 1], ["status", 2], as_json=True)
        replies: list[Any] = []
        while len(replies) < 2:
            replies += await client.items()
        assert {item[0]: item[1] and item[1]["code"] for item in replies} == {
            1: "too_large",
            2: None,
        }
        assert len((await client.ask(["messages", 1]))[0][2]["messages"]) == 6

    with_node(tmp_path, check)


def test_a_list_is_cut_before_it_fills_a_frame(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        fill(node, 10, 3 << 20)
        for as_json in (False, True):
            seen: list[str] = []
            more = True
            while more:
                after = seen[-1] if seen else ""
                reply = (await client.ask(["list", 1, "", 1000, after], as_json=as_json))[0]
                seen += [key["key"] for key in reply[2]["keys"]]
                more = reply[2]["more"]
            assert seen == [f"k{number:03}" for number in range(10)]

    with_node(tmp_path, check)


def test_json_and_messagepack_may_share_a_connection(tmp_path: Path) -> None:
    async def check(client: RawClient, _node: SingleNode) -> None:
        client.writer.write(
            request_frame([["status", 1]]) + request_frame([["status", 2]], as_json=True)
        )
        frames = [await client.frame(), await client.frame()]
        assert {frame.flags: len(frame.body) > 0 for frame in frames} == {0: True, 1: True}

    with_node(tmp_path, check)


def test_closing_the_server_tells_streams_and_answers_what_is_ready(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "s"
        async with serving(SingleNode(), path) as server, connected(path) as client:
            await client.ask(["watch_messages", 7])
            await server.close()
            item = (await client.items())[0]
            assert (item[0], item[1]["code"]) == (7, "shutting_down")
            assert await client.closed()

    run(main())


def test_closing_the_server_does_not_wait_for_who_does_not_read(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "s"
        node = SingleNode()
        fill(node, 1, 8 << 20)
        server = serving(node, path)
        async with server as api, connected(path) as lazy, connected(path) as other:
            lazy.send(["get", 1, "k000", "stale"])
            await other.ask(["status", 1])
            async with asyncio.timeout(TIMEOUT_S):
                await api.close()
            assert api._connections == set()

    run(main())


def test_the_server_runs_on_uvloop(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "s"
        node = SingleNode()
        async with serving(node, path), connected(path) as client:
            fill(node, 1, 8 << 20)
            replies = await client.ask(["put", 1, "k", b"v"], ["get", 2, "k000", "stale"])
            assert len(replies[1][2]["value"]) == 8 << 20
            client.send(["get", 1, "k"])
            client.writer.write_eof()
            assert (await client.items())[0][2]["value"] == b"v"
            assert await client.closed()
        assert not path.exists()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_many_clients_at_once(tmp_path: Path) -> None:
    with serving_in_a_thread(tmp_path / "s") as served:
        clients = [SyncClient(str(served.path)) for _ in range(50)]
        for number, client in enumerate(clients):
            client.request(protocol.Put(1, f"k{number}", b"v"))
        assert clients[0].request(protocol.List(1, "k")).revision == 50
        for client in clients:
            client.close()
