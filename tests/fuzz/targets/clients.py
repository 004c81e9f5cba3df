"""Requests as an agent reads them, and replies as a client does."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import msgspec

from raft_agent import wire
from raft_agent.api import protocol
from raft_agent.api.answers import RaftClientError, item_of, read_replies, result_of
from raft_agent.api.host import Failure
from raft_agent.api.link import Link
from raft_agent.api.protocol import Error, ErrorCode
from raft_agent.api.salvage import UnreadableError, read_requests
from raft_agent.runtime.memberships import membership_result
from raft_agent.wire import FrameType
from tests.fuzz.samples import requests
from tests.fuzz.target import Target


def _read(data: bytes, *, is_json: bool) -> None:
    """Every request is understood, or answered with an error under its id."""
    try:
        requests = read_requests(data, is_json)
    except UnreadableError as error:
        assert str(error)
        return
    assert len(requests) <= protocol.MAX_REQUESTS_PER_FRAME
    for request in requests:
        if isinstance(request, tuple):
            request_id, error = request
            assert 0 <= request_id < 1 << 63
            assert error.code in (ErrorCode.BAD_REQUEST, ErrorCode.NOT_IN_THIS_VERSION)
            protocol.ENCODER.encode((request_id, error, None))
        else:
            again = protocol.REQUEST_DECODER.decode(protocol.ENCODER.encode(request))
            assert again == request


def read_messagepack(data: bytes) -> None:
    _read(data, is_json=False)


def read_json(data: bytes) -> None:
    _read(data, is_json=True)


ONE_OF_EACH = requests()


class _Transport:
    """Where a client's link would write."""

    def __init__(self) -> None:
        self.is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True

    close = abort

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def write(self, data: bytes) -> None: ...


_LOOP = asyncio.new_event_loop()


async def _answers(frames: bytes, request: protocol.Request) -> None:
    link = Link()
    transport = _Transport()
    link.connection_made(transport)  # type: ignore[arg-type]
    future = link.ask(request)
    link.data_received(frames)
    link.connection_lost(None)
    try:
        await future
        while True:
            await link.next_item()
    except RaftClientError as error:
        assert str(error)
    except Exception as error:
        if type(error).__name__ != "NotSent":
            raise


def take_replies(data: bytes) -> None:
    """Whatever answers, a client gets a result or an exception of its own."""
    if len(data) < 2:
        return
    request = ONE_OF_EACH[data[0] % len(ONE_OF_EACH)]
    kind = FrameType.CLIENT_PUSH if data[1] & 1 else FrameType.CLIENT_REPLY
    body = data[2:]
    _LOOP.run_until_complete(_answers(wire.encode(kind, body), request))
    try:
        replies = read_replies(body)
    except ValueError:
        return
    for reply in replies:
        for read in (result_of, item_of):
            try:
                read(request, reply)
            except RaftClientError as error:
                assert str(error)
            except KeyError:
                assert read is item_of


def take_leaders_answer(data: bytes) -> None:
    """Whatever a leader answers, who passed a change on gets a result or a failure."""
    assert isinstance(membership_result(data), Failure | protocol.MembershipResult)


def _leaders_answers() -> list[bytes]:
    member = protocol.MemberInfo("node-01", "0" * 16, "127.0.0.1:5555", "voter")
    result = msgspec.Raw(protocol.ENCODER.encode(protocol.MembershipResult(7, ["w"], [member])))
    error = Error("no", ErrorCode.REFUSED, "do this", "node-02")
    return [
        protocol.ENCODER.encode(protocol.Reply(1, None, result)),
        protocol.ENCODER.encode(protocol.Reply(1, error)),
    ]


def _requests() -> list[bytes]:
    every = [protocol.ENCODER.encode([request]) for request in ONE_OF_EACH]
    return [*every, protocol.ENCODER.encode(ONE_OF_EACH), b"\x91\x92\xa3foo\x01"]


def _json_requests() -> list[bytes]:
    every = [protocol.JSON_ENCODER.encode([request]) for request in ONE_OF_EACH]
    return [*every, protocol.JSON_ENCODER.encode(ONE_OF_EACH), b'[["foo",1,{}]]']


def _replies() -> list[bytes]:
    found: list[bytes] = []
    error = Error("no", ErrorCode.NOT_LEADER, "ask", "node-02")
    results: list[Any] = [
        None,
        protocol.WriteResult(5, 2, 9),
        protocol.KeyValue("k", b"v", 1, 1, 1),
        protocol.ListResult([protocol.KeyValue("k", b"v", 1, 1, 1)], True, 4, None),
        protocol.MessagesResult(4, []),
        protocol.ChallengeResult(b"n" * 16),
        base64.b64encode(b"x"),
        [1, {"a": [None, True, 1.5]}],
    ]
    for number, request in enumerate(ONE_OF_EACH):
        for result in results:
            body = msgspec.msgpack.encode([(request.id, None, result)])
            found.append(bytes((number, 0)) + body)
        found.append(bytes((number, 1)) + msgspec.msgpack.encode([(request.id, error, None)]))
    return found


TARGETS = (
    Target("requests", read_messagepack, _requests),
    Target("requests_json", read_json, _json_requests),
    Target("replies", take_replies, _replies),
    Target("leaders_answers", take_leaders_answer, _leaders_answers),
)
