"""What all clients together may cost a node, and how long one may take to say something."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

import pytest

from raft_agent import wire
from raft_agent.api import connection, limits
from raft_agent.api.limits import Crowd
from tests.unit.api.raw_client import RawClient, connected, request_frame, with_node
from tests.unit.api.single_node import SingleNode, run, serving

HALF = request_frame([["status", 1]])[:-1]


class Client:
    """One that costs so much."""

    def __init__(self, *, in_flight: int = 0, streams: int = 0, unsent: int = 0, half: int = 0):
        self.unsent_bytes = unsent
        self.counts = in_flight, streams, half
        self.dropped = ""

    def in_flight(self) -> int:
        return self.counts[0]

    def stream_count(self) -> int:
        return self.counts[1]

    def half_frame_bytes(self) -> int:
        return self.counts[2]

    def drop(self, reason: str) -> None:
        self.dropped = reason


def counted(*clients: Client) -> None:
    """Have them counted once, as it is done every second."""

    async def count() -> None:
        crowd = Crowd(clients)
        crowd._count_again()
        crowd.stop()

    asyncio.run(count())


def test_one_client_too_many_is_answered_and_the_others_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "MAX_CONNECTIONS", 2)

    async def check(first: RawClient, _node: SingleNode) -> None:
        await first.ask(["status", 1])
        async with connected(tmp_path / "s") as second, connected(tmp_path / "s") as third:
            assert (await second.ask(["status", 1]))[0][1] is None
            replies = await third.ask(["status", 7], ["nonsense", 8])
            assert [reply[0] for reply in replies] == [7, 8]
            assert {reply[1]["code"] for reply in replies} == {"busy"}
            assert replies[0][1]["error"] == "2 clients are connected to this node already"
            assert await third.closed()
        async with connected(tmp_path / "s") as again:
            assert (await again.ask(["status", 1]))[0][1] is None

    with_node(tmp_path, check)


def test_who_was_turned_away_and_asks_nothing_is_closed_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_CONNECTIONS", 1)
    monkeypatch.setattr(connection, "REFUSED_S", 0.05)

    async def check(first: RawClient, _node: SingleNode) -> None:
        await first.ask(["status", 1])
        async with connected(tmp_path / "s") as second:
            assert await second.closed()

    with_node(tmp_path, check)


def test_far_too_many_clients_are_closed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_CONNECTIONS", 1)
    monkeypatch.setattr("raft_agent.api.server.MAX_REFUSED_CONNECTIONS", 1)

    async def check(first: RawClient, _node: SingleNode) -> None:
        await first.ask(["status", 1])
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(connected(tmp_path / "s"))
            third = await stack.enter_async_context(connected(tmp_path / "s"))
            assert await third.closed()

    with_node(tmp_path, check)


@pytest.mark.parametrize("start", [HALF[:3], HALF[:60], HALF], ids=["magic", "header", "body"])
def test_a_frame_that_is_not_finished_ends_its_connection(
    tmp_path: Path,
    start: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(connection, "HALF_FRAME_S", 0.05)

    async def check(client: RawClient, _node: SingleNode) -> None:
        await client.ask(["status", 1])
        client.writer.write(start)
        assert await client.closed()

    with caplog.at_level(logging.WARNING):
        with_node(tmp_path, check)
    assert "a frame was not finished within 0.05 s" in caplog.text


def test_a_client_whose_frames_come_is_not_taken_for_one_that_hangs(tmp_path: Path) -> None:
    """Each look finds half a frame, but not the same."""

    async def main() -> None:
        path = tmp_path / "s"
        async with serving(SingleNode(), path) as server, connected(path) as client:
            frame = request_frame([["status", 1]])
            client.writer.write(frame + frame[:-1])
            await client.items()
            (stands,) = server._connections
            frames_served = stands._frames_served
            client.writer.write(frame[-1:] + frame[:-1])
            await client.items()
            stands._is_half_still(frames_served)
            client.writer.write(frame[-1:] + frame[:-1])
            await client.items()
            stands._is_half_still(stands._frames_served)
            assert await client.closed()

    run(main())


def test_requests_over_the_limit_of_all_clients_are_refused_and_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_IN_FLIGHT_IN_ALL", 10)

    async def check(client: RawClient, node: SingleNode) -> None:
        node.hold_back = True
        client.send(*(["put", number, "held", b""] for number in range(8)))
        async with connected(tmp_path / "s") as other:
            replies = await other.ask(*(["put", number, "refused", b""] for number in range(3)))
            assert {reply[1]["code"] for reply in replies} == {"busy"}
            node.apply_waiting()
            while len(await client.items()) < 8:
                pass
            node.hold_back = False
            assert (await other.ask(["put", 1, "served", b""]))[0][1] is None
        assert node.machine.get("refused") is None

    with_node(tmp_path, check)


def test_streams_over_the_limit_of_all_clients_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_STREAMS_IN_ALL", 2)

    async def check(client: RawClient, _node: SingleNode) -> None:
        await client.ask(["watch_keys", 1, "a"], ["watch_messages", 2])
        async with connected(tmp_path / "s") as other:
            refused = (await other.ask(["watch_keys", 1, "a"]))[0][1]
            assert refused["code"] == "busy"
            assert refused["error"] == "This node's clients have 2 streams already"
            await client.ask(["cancel", 3, 1])
            assert (await other.ask(["watch_keys", 1, "a"]))[0][1] is None

    with_node(tmp_path, check)


@pytest.mark.parametrize("what", ["unsent", "half"])
def test_whose_bytes_are_the_most_goes_first(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_UNREAD_IN_ALL_BYTES", 100)
    monkeypatch.setattr(limits, "MAX_HALF_FRAMES_BYTES", 100)
    clients = [Client(**{what: size}) for size in (30, 80, 5, 60)]
    counted(*clients)
    assert [bool(client.dropped) for client in clients] == [False, True, False, False]
    assert clients[1].dropped.startswith("175 bytes of ")
    assert clients[1].dropped.endswith(": 80")


def test_nobody_is_dropped_within_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_UNREAD_IN_ALL_BYTES", 100)
    clients = [Client(unsent=50), Client(unsent=50)]
    counted(*clients)
    assert not any(client.dropped for client in clients)


def test_a_node_with_few_files_takes_few_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    for files, clients in ((1 << 20, 8192), (4096, 3584), (256, 128)):
        monkeypatch.setattr(limits, "open_files_limit", lambda files=files: files)
        assert Crowd(()).max_connections == clients


@pytest.mark.parametrize(
    "request_",
    [
        ["get", 1, "k" * 5_000],
        ["list", 1, "k" * 5_000],
        ["watch_keys", 1, "k" * 5_000],
        ["setting_set", 1, "n" * 300, 5],
        ["leave", 1, "n" * 300],
        ["join", 1, "node-02", "h" * 600],
        ["join_self", 1, "n", "h:1", b"", b"p" * 100],
        ["leader_transfer", 1, "n" * 300],
    ],
    ids=lambda request: request[0],
)
def test_texts_that_can_be_no_name_are_refused_before_they_are_kept(
    tmp_path: Path, request_: list[object]
) -> None:
    async def check(client: RawClient, _node: SingleNode) -> None:
        error = (await client.ask(request_))[0][1]
        assert error["code"] == "bad_request"
        assert "of length <=" in error["error"]

    with_node(tmp_path, check)


def test_the_reader_says_how_much_of_a_frame_has_come() -> None:
    reader = wire.FrameReader(frozenset({32}))
    reader.feed(HALF)
    assert reader.pending_bytes == len(HALF)


def test_clients_that_misbehave_do_not_fill_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now_s = [100.0]
    monkeypatch.setattr(limits.time, "monotonic", lambda: now_s[0])
    crowd = Crowd(())
    with caplog.at_level(logging.WARNING):
        for number in range(50):
            crowd.complain(f"closed the connection of client {number}")
        assert len(caplog.records) == limits.MAX_LINES
        now_s[0] += limits.LINES_INTERVAL_S
        crowd.complain("closed another")
        crowd.complain("and another")
    said = [record.getMessage() for record in caplog.records[limits.MAX_LINES :]]
    left_out = "(and 30 more lines about clients were left out)"
    assert said == [f"closed another {left_out}", "and another"]
