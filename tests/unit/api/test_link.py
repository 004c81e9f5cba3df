"""One connection of the asyncio client: what shares a frame, and what fails alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import msgspec
import pytest

from raft_agent import wire
from raft_agent.api import link, protocol
from raft_agent.api.client import RequestFailed
from raft_agent.api.link import Link
from tests.unit.api.single_node import run


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, frame: bytes) -> None:
        self.written.append(frame)

    def requests(self) -> list[list[protocol.Request]]:
        """What went out, by frames."""
        reader = wire.FrameReader(frozenset({int(wire.FrameType.CLIENT_REQUEST)}))
        frames = [frame for data in self.written for frame in reader.feed(data)]
        found = [protocol.REQUESTS_DECODER.decode(frame.body) for frame in frames]
        assert [frame.count for frame in frames] == [len(requests) for requests in found]
        return found


def with_link(check: Callable[[Link, Wire], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        asked, out = Link(), Wire()
        asked.connection_made(cast("asyncio.Transport", out))
        async with asyncio.timeout(60):
            await check(asked, out)

    run(main())


def large_txn(number: int) -> protocol.Txn:
    return protocol.Txn(number, [], [protocol.PutKey("k", bytes(200_000))])


LARGE: list[Callable[[int], protocol.Request]] = [
    lambda number: protocol.Put(number, "k", bytes(200_000)),
    lambda number: protocol.Send(number, "x" * 200_000),
    large_txn,
]


@pytest.mark.parametrize("make", LARGE, ids=["put", "send", "txn"])
def test_large_requests_of_one_turn_go_in_frames_of_a_bounded_size(
    make: Callable[[int], protocol.Request],
) -> None:
    async def check(asked: Link, out: Wire) -> None:
        requests = [make(number) for number in range(1, 31)]
        for request in requests:
            asked.ask(request)
        await asyncio.sleep(0)
        assert all(len(frame) < link._FRAME_BYTES + 300_000 for frame in out.written)
        assert len(out.written) < len(requests)
        assert [request.id for frame in out.requests() for request in frame] == [*range(1, 31)]

    with_link(check)


def test_small_requests_of_all_kinds_share_a_frame_in_their_order() -> None:
    async def check(asked: Link, out: Wire) -> None:
        requests: list[protocol.Request] = [
            protocol.Put(1, "k", b"v", 3, True, protocol.OneShot(b"o" * 16, 5), 7),
            protocol.Get(2, "ä"),
            protocol.Delete(3, "k", 1),
            protocol.Send(4, "text"),
            protocol.Put(5, "k", bytes(600_000)),
            protocol.Txn(6, [], [protocol.PutKey("k", b"v")]),
        ]
        for request in requests:
            asked.ask(request)
        await asyncio.sleep(0)
        assert out.requests() == [requests]

    with_link(check)


def test_a_request_that_fits_no_frame_fails_alone_and_was_not_sent() -> None:
    async def check(asked: Link, out: Wire) -> None:
        first = asked.ask(protocol.Send(1, "text"))
        too_large = [
            asked.ask(protocol.Send(2, "x" * (wire.MAX_BODY_BYTES + 1))),
            asked.ask(protocol.Put(3, "k", bytes(wire.MAX_BODY_BYTES))),
            asked.ask(protocol.Get(4, "k" * wire.MAX_BODY_BYTES)),
        ]
        last = asked.ask(protocol.Send(5, "text"))
        await asyncio.sleep(0)
        for answer in too_large:
            with pytest.raises(RequestFailed, match="is over the limit of") as refused:
                await answer
            assert refused.value.code is protocol.ErrorCode.TOO_LARGE
        assert [request.id for frame in out.requests() for request in frame] == [1, 5]
        assert not first.done()
        assert not last.done()

    with_link(check)


def test_the_largest_request_that_fits_a_frame_is_sent() -> None:
    async def check(asked: Link, out: Wire) -> None:
        empty = len(protocol.ENCODER.encode([protocol.Put(1, "k", bytes(1 << 20))])) - (1 << 20)
        for more in (0, 1):
            size = wire.MAX_BODY_BYTES - empty + more
            answer = asked.ask(protocol.Put(1, "k", bytes(size)))
            await asyncio.sleep(0)
            assert answer.done() is bool(more)
        assert isinstance(answer.exception(), RequestFailed)
        assert len(out.written) == 1

    with_link(check)


UNENCODABLE: list[Any] = [
    protocol.Put(2, "\ud800", b"v"),
    protocol.Put(2, "k", b"v", 1 << 70),
    protocol.Put(2, "k", cast("bytes", None)),
    protocol.Put(2, "k", cast("bytes", object())),
    protocol.Get(2, "\ud800"),
    protocol.Get(2, cast("str", 7)),
    protocol.Send(2, "\ud800"),
    protocol.LeaseGrant(2, 1 << 70),
]


@pytest.mark.parametrize("request_", UNENCODABLE, ids=repr)
def test_a_request_that_can_not_be_encoded_fails_alone(request_: protocol.Request) -> None:
    """Or the agent says what is wrong with it."""

    async def check(asked: Link, out: Wire) -> None:
        asked.ask(protocol.Txn(1, [], []))
        answer = asked.ask(request_)
        asked.ask(protocol.Put(3, "k", b"v"))
        await asyncio.sleep(0)
        sent: list[Any] = []
        for data in out.written:
            sent += msgspec.msgpack.decode(data[wire.HEADER_SIZE :])
        assert [item[1] for item in sent if item[1] != 2] == [1, 3]
        if answer.done():
            assert isinstance(answer.exception(), ValueError | TypeError | OverflowError)
        else:
            assert [item[1] for item in sent] == [1, 2, 3]

    with_link(check)


def test_a_forgotten_request_is_not_sent() -> None:
    async def check(asked: Link, out: Wire) -> None:
        requests = [protocol.Send(number, "x") for number in range(1, 4)]
        for request in requests:
            asked.ask(request)
        asked.forget(requests[1])
        await asyncio.sleep(0)
        assert [[request.id for request in frame] for frame in out.requests()] == [[1, 3]]

    with_link(check)


def test_what_waits_while_the_agent_does_not_read_was_not_sent() -> None:
    async def check(asked: Link, out: Wire) -> None:
        asked.pause_writing()
        request = protocol.Send(1, "x")
        asked.ask(request)
        await asyncio.sleep(0)
        assert not asked.was_sent(request)
        assert out.written == []
        asked.resume_writing()
        await asyncio.sleep(0)
        assert asked.was_sent(request)
        assert len(out.written) == 1

    with_link(check)
