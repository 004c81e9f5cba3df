"""A follower that passes requests on to its leader, both behind real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from raft_agent import wire
from raft_agent.api import protocol
from raft_agent.api.host import Failure
from raft_agent.api.server import ApiServer
from raft_agent.machine.commands import Put
from tests.unit.api.raw_client import RawClient, connected
from tests.unit.api.single_node import SingleNode, run, serving

Check = Callable[[RawClient, SingleNode, SingleNode], Awaitable[None]]


def with_two(tmp_path: Path, check: Check) -> None:
    """`check(client of the follower, follower, leader)`."""
    follower, leader = SingleNode("node-02"), SingleNode("node-01")
    follower.leader = "node-01"

    async def main() -> None:
        async with (
            serving(leader, tmp_path / "leader") as api,
            serving(follower, tmp_path / "follower"),
            connected(tmp_path / "follower") as client,
        ):
            follower.leader_api = api
            await check(client, follower, leader)

    run(main())


@pytest.mark.parametrize("as_json", [False, True])
def test_a_follower_passes_writes_on_when_asked_to(tmp_path: Path, as_json: bool) -> None:
    async def check(client: RawClient, follower: SingleNode, leader: SingleNode) -> None:
        value: Any = "dg==" if as_json else b"v"
        replies = await client.ask(
            ["put", 11, "k", value, -1, True],
            ["send", 12, "hi", True],
            ["delete", 13, "none", -1, True],
            ["put", 14, "k", value, 7, True],
            ["leader_transfer", 15, "", True],
            as_json=as_json,
        )
        assert [reply[0] for reply in replies] == [11, 12, 13, 14, 15]
        assert replies[0][2] == {"index": 1, "term": 1, "revision": 1, "deleted": 0}
        assert replies[1][2]["index"] == 2
        assert replies[2][2]["deleted"] == 0
        assert replies[3][1]["code"] == "conflict"
        assert replies[4][2] == {"leader": "node-01"}
        entry = leader.machine.get("k")
        assert entry is not None
        assert entry.value == b"v"
        assert leader.machine.messages(1)[0].node == "node-02"
        assert follower.machine.last_applied == 0

    with_two(tmp_path, check)


def test_health_is_the_leaders_unless_asked_otherwise(tmp_path: Path) -> None:
    async def check(client: RawClient, _follower: SingleNode, _leader: SingleNode) -> None:
        replies = await client.ask(["health", 1], ["health", 2, False])
        assert [reply[2]["members"][0]["name"] for reply in replies] == ["node-01", "node-02"]

    with_two(tmp_path, check)


def test_health_is_answered_here_when_the_leader_does_not_answer(tmp_path: Path) -> None:
    async def check(client: RawClient, follower: SingleNode, _leader: SingleNode) -> None:
        follower.leader_api = None
        reply = (await client.ask(["health", 1]))[0]
        assert reply[2]["members"][0]["name"] == "node-02"
        follower.leader = None
        reply = (await client.ask(["health", 1]))[0]
        assert reply[2]["leader"] is None

    with_two(tmp_path, check)


def test_a_write_that_can_not_be_passed_on_says_why(tmp_path: Path) -> None:
    async def check(client: RawClient, follower: SingleNode, _leader: SingleNode) -> None:
        follower.leader_api = None
        reply = (await client.ask(["put", 1, "k", b"", -1, True]))[0]
        assert reply[1] == {"error": "The leader does not answer", "code": "no_leader"}

    with_two(tmp_path, check)


def test_a_leaders_answer_that_can_not_be_read_leaves_the_outcome_open(tmp_path: Path) -> None:
    async def check(client: RawClient, follower: SingleNode, _leader: SingleNode) -> None:
        follower.forward = lambda _request, done: done(b"garbage")  # type: ignore[method-assign]
        reply = (await client.ask(["put", 1, "k", b"", -1, True]))[0]
        assert reply[1]["code"] == "unknown_outcome"

    with_two(tmp_path, check)


def test_who_leads_no_more_does_not_pass_a_forwarded_request_on(tmp_path: Path) -> None:
    async def check(client: RawClient, _follower: SingleNode, leader: SingleNode) -> None:
        leader.leader = "node-02"
        forwards: list[protocol.Request] = []
        leader.forward = lambda request, _done: forwards.append(request)  # type: ignore[method-assign]
        reply = (await client.ask(["put", 1, "k", b"", -1, True]))[0]
        assert (reply[1]["code"], reply[1]["leader"]) == ("not_leader", "node-02")
        assert forwards == []

    with_two(tmp_path, check)


@pytest.mark.parametrize(
    ("body", "request_id", "code"),
    [
        (b"", 0, "bad_request"),
        (b"\xc1", 0, "bad_request"),
        (protocol.ENCODER.encode([["status", 1]]), 0, "bad_request"),
        (protocol.ENCODER.encode(["put", 5, 1]), 5, "bad_request"),
        (protocol.ENCODER.encode(["txns", 6]), 6, "not_in_this_version"),
        (protocol.ENCODER.encode(protocol.WatchMessages(7)), 7, "bad_request"),
    ],
)
def test_a_forwarded_request_that_can_not_be_served_is_answered(
    tmp_path: Path, body: bytes, request_id: int, code: str
) -> None:
    server = ApiServer(SingleNode(), socket_path=tmp_path / "s", group=None)
    answers: list[bytes] = []
    server.serve_forwarded(body, answers.append)
    reply = protocol.msgspec.msgpack.decode(answers[0], type=protocol.Reply)
    assert len(answers) == 1
    assert reply.error is not None
    assert (reply.id, reply.error.code) == (request_id, code)


@pytest.mark.parametrize("kind", sorted(protocol.RESULT_TYPES, key=lambda kind: kind.__name__))
def test_who_is_no_member_has_nothing_served_but_its_own_joining(
    tmp_path: Path, kind: type[protocol.Request]
) -> None:
    """A certificate makes nobody a member: it may be one of a node that was removed."""

    async def main() -> None:
        node = SingleNode()
        server = ApiServer(node, socket_path=tmp_path / "s", group=None)
        answers: list[bytes] = []
        required = (field for field in msgspec.structs.fields(kind) if field.required)
        request = kind(*(_value(field.type) for field in required))
        body = protocol.ENCODER.encode(request)
        server.serve_forwarded(body, answers.append, "node-09", is_member=False)
        await asyncio.sleep(0)
        reply = msgspec.msgpack.decode(answers[0], type=protocol.Reply)
        if kind in (protocol.JoinChallenge, protocol.JoinSelf):
            assert reply.error is None
        else:
            assert reply.error is not None
            assert reply.error.code == "permission_denied"
            assert "node-09 is no member of this cluster" in reply.error.error
            assert all(who == "node node-09" for who, _, _ in node.audits)

    run(main())


def _value(kind: Any) -> Any:
    """Something that a field of this type may hold."""
    options = (1, "node-04", b"1", [])
    for value in options:
        with contextlib.suppress(msgspec.ValidationError):
            return msgspec.convert(msgspec.to_builtins(value), kind)
    raise AssertionError(kind)


def test_an_answer_too_large_for_a_frame_is_refused_where_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read is answered from within the core's step: an exception there would end the node."""
    answers: list[bytes] = []

    async def main() -> None:
        node = SingleNode()
        server = ApiServer(node, socket_path=tmp_path / "s", group=None)
        node.apply_commands([Put("k", bytes(1000))])
        monkeypatch.setattr(wire, "MAX_BODY_BYTES", 500)
        served = asyncio.Event()

        def answer(body: bytes) -> None:
            wire.encode(wire.FrameType.FORWARD_REPLY, body)
            answers.append(body)
            served.set()

        server.serve_forwarded(protocol.ENCODER.encode(protocol.Get(5, "k")), answer)
        async with asyncio.timeout(10):
            await served.wait()

    run(main())
    reply = protocol.msgspec.msgpack.decode(answers[0], type=protocol.Reply)
    assert reply.error is not None
    assert (reply.id, reply.error.code) == (5, "too_large")


def test_the_hosts_failure_reaches_the_client_as_it_is(tmp_path: Path) -> None:
    async def check(client: RawClient, _follower: SingleNode, leader: SingleNode) -> None:
        failure = Failure(protocol.ErrorCode.BUSY, "Too much", "Wait", "node-09")
        leader.propose = lambda _command, done: done(failure)  # type: ignore[method-assign]
        reply = (await client.ask(["put", 1, "k", b"", -1, True]))[0]
        assert reply[1] == {
            "error": "Too much",
            "code": "busy",
            "hint": "Wait",
            "leader": "node-09",
        }

    with_two(tmp_path, check)
