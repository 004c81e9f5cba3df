"""Every request, asked of a node through its socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from raft_agent import wire
from raft_agent.api import protocol, requests
from raft_agent.api.limits import Crowd
from raft_agent.api.protocol import Request
from raft_agent.api.requests import RequestHandlers
from raft_agent.machine.commands import SendMessage
from raft_agent.machine.machine import Entry
from tests.unit.api.raw_client import RawClient, with_node
from tests.unit.api.single_node import SingleNode


def result(reply: Any) -> Any:
    assert reply[1] is None, reply
    return reply[2]


def error(reply: Any) -> Any:
    assert reply[2] is None, reply
    return reply[1]


def test_put_get_and_delete_a_key(tmp_path: Path) -> None:
    async def check(client: RawClient, _node: SingleNode) -> None:
        replies = await client.ask(["put", 1, "k", b"v"])
        assert result(replies[0]) == {"index": 1, "term": 1, "revision": 1, "deleted": 0}
        assert result((await client.ask(["get", 2, "k"]))[0]) == {
            "key": "k",
            "value": b"v",
            "revision": 1,
            "create_revision": 1,
            "version": 1,
        }
        replies = await client.ask(["delete", 3, "k"])
        assert result(replies[0]) == {"index": 2, "term": 1, "revision": 2, "deleted": 1}
        replies = await client.ask(["delete", 4, "k"])
        assert result(replies[0])["deleted"] == 0
        missing = error((await client.ask(["get", 5, "k"]))[0])
        assert missing == {"error": 'No such key: "k"', "code": "key_not_found"}

    with_node(tmp_path, check)


def test_a_condition_that_fails_says_how_the_key_is(tmp_path: Path) -> None:
    async def check(client: RawClient, _node: SingleNode) -> None:
        await client.ask(["put", 1, "k", b"v"])
        replies = await client.ask(
            ["put", 1, "k", b"x", 0],
            ["put", 2, "k", b"x", 7],
            ["delete", 3, "none", 7],
            ["put", 4, "k", b"x", 1],
        )
        assert [error(reply)["code"] for reply in replies[:3]] == ["conflict"] * 3
        assert [error(reply)["error"] for reply in replies[:3]] == [
            'The key "k" is at revision 1, not absent',
            'The key "k" is at revision 1, not at revision 7',
            'The key "none" is absent, not at revision 7',
        ]
        assert result(replies[3])["revision"] == 2

    with_node(tmp_path, check)


def test_a_stale_read_of_a_key_that_is_not_there_says_how_old_that_may_be(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        for age_ms, hint in ((None, "It may be of any age"), (70, "As of 70 ms ago")):
            node.age_ms = age_ms
            missing = error((await client.ask(["get", 1, "k", "stale"]))[0])
            assert (missing["code"], missing["hint"][: len(hint)]) == ("key_not_found", hint)

    with_node(tmp_path, check)


def test_list_goes_on_after_the_last_key(tmp_path: Path) -> None:
    async def check(client: RawClient, _node: SingleNode) -> None:
        await client.ask(*(["put", number, f"k/{number}", b"v"] for number in range(1, 6)))
        first = result((await client.ask(["list", 1, "k/", 3]))[0])
        assert [key["key"] for key in first["keys"]] == ["k/1", "k/2", "k/3"]
        assert (first["more"], first["revision"]) == (True, 5)
        rest = result((await client.ask(["list", 1, "k/", 3, "k/3", "stale"]))[0])
        assert [key["key"] for key in rest["keys"]] == ["k/4", "k/5"]
        assert rest["more"] is False

    with_node(tmp_path, check)


def test_messages_that_fit_no_frame_are_not_encoded_to_find_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = SingleNode()
    node.apply_commands([SendMessage("x" * 300, "node-01")] * 5)
    monkeypatch.setattr(wire, "MAX_BODY_BYTES", 1000)
    monkeypatch.setattr(requests, "message_item", None)

    async def check(client: RawClient, node: SingleNode) -> None:
        reply = (await client.ask(["messages", 1, 3]))[0]
        assert reply[1]["code"] == "too_large"
        assert "The newest 3 messages are over the limit of 1000 bytes" in reply[1]["error"]

    with_node(tmp_path, check, node)


def test_messages_have_their_node_and_the_leaders_time(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        node.time_ms = 1_700_000_000_123
        assert result((await client.ask(["send", 1, "héllo"]))[0])["index"] == 1
        await client.ask(["send", 1, "two", False, "a-lie"])
        assert result((await client.ask(["messages", 1, 1]))[0]) == {
            "last_applied": 2,
            "messages": [
                {"index": 2, "time": "2023-11-14T22:13:20.123Z", "node": "node-01", "text": "two"}
            ],
        }
        both = result((await client.ask(["messages", 1]))[0])["messages"]
        assert [message["text"] for message in both] == ["two", "héllo"]

    with_node(tmp_path, check)


def test_a_time_beyond_the_calendar_is_shown_as_its_end(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        node.time_ms = 2**64 - 1
        await client.ask(["send", 1, "late"])
        messages = result((await client.ask(["messages", 1]))[0])["messages"]
        assert messages[0]["time"] == "9999-12-31T23:59:59.999Z"

    with_node(tmp_path, check)


def test_questions_about_the_node(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        node.happen("one")
        node.happen("two")
        replies = await client.ask(
            ["status", 1], ["member_list", 2], ["health", 3], ["events", 4, 1], ["events", 5]
        )
        status, members, health, newest, events = map(result, replies)
        assert msgspec.convert(status, protocol.StatusResult) == node.status()
        assert msgspec.convert(members, protocol.MemberListResult) == node.member_list()
        assert msgspec.convert(health, protocol.HealthResult) == node.health()
        assert [event["kind"] for event in newest["events"]] == ["two"]
        assert [event["kind"] for event in events["events"]] == ["one", "two"]

    with_node(tmp_path, check)


def test_leadership_is_handed_over_by_name(tmp_path: Path) -> None:
    async def check(client: RawClient, _node: SingleNode) -> None:
        replies = await client.ask(["leader_transfer", 1], ["leader_transfer", 2, "node-09"])
        assert result(replies[0]) == {"leader": "node-01"}
        assert error(replies[1])["code"] == "no_such_member"

    with_node(tmp_path, check)


WRITES: list[list[Any]] = [
    ["put", 1, "k", b"v"],
    ["delete", 1, "k"],
    ["send", 1, "hi"],
    ["leader_transfer", 1],
]


@pytest.mark.parametrize("write", WRITES)
def test_a_follower_refuses_writes_and_names_the_leader(tmp_path: Path, write: list[Any]) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        node.leader = "node-02"
        assert error((await client.ask(write))[0]) == {
            "error": "Not leader - send to leader node",
            "code": "not_leader",
            "hint": "Send from leader node: node-02",
            "leader": "node-02",
        }
        assert node.machine.last_applied == 0

    with_node(tmp_path, check)


@pytest.mark.parametrize("leader", [None, "deposed"])
@pytest.mark.parametrize("write", WRITES)
def test_without_a_leader_writes_are_refused_with_a_hint(
    tmp_path: Path, write: list[Any], leader: str | None
) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        node.leader = leader
        if leader is not None:
            # A leader that has stepped down may still take itself for the last one it knew.
            node.node_name = leader
            node.is_leader = lambda: False  # type: ignore[method-assign]
        refused = error((await client.ask(write))[0])
        assert refused["code"] == "no_leader"
        assert "raftctl health" in refused["hint"]

    with_node(tmp_path, check)


def test_linearizable_reads_of_one_turn_share_a_barrier(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        await client.ask(["put", 1, "k", b"v"])
        await client.ask(*(["get", number, "k"] for number in range(50)), ["list", 50, "k"])
        assert node.barriers == 1
        await client.ask(["get", 1, "k", "lease"])
        assert node.barriers == 2
        await client.ask(["get", 1, "k", "stale"], ["list", 2, "", 1, "", "stale"])
        assert node.barriers == 2

    with_node(tmp_path, check)


def test_a_linearizable_read_waits_for_its_barrier_and_then_reads(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        barriers: list[Callable[[Any], None]] = []
        began = asyncio.Event()

        def hold(done: Callable[[Any], None]) -> None:
            barriers.append(done)
            began.set()

        node.read_barrier = hold  # type: ignore[method-assign]
        client.send(["get", 1, "k"])
        await began.wait()
        assert error((await client.ask(["get", 2, "k", "stale"]))[0])["code"] == "key_not_found"
        await client.ask(["put", 3, "k", b"new"])
        barriers[0](None)
        assert result((await client.items())[0])["value"] == b"new"

    with_node(tmp_path, check)


def test_a_read_whose_barrier_fails_is_refused(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        node.leader = None
        replies = await client.ask(["get", 1, "k"], ["list", 2])
        assert [error(reply)["code"] for reply in replies] == ["no_leader"] * 2

    with_node(tmp_path, check)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (["put", 1, "", b""], "bad_request"),
        (["delete", 1, ""], "bad_request"),
        (["put", 1, "k" * 4097, b""], "too_large"),
        (["put", 1, "é" * 2049, b""], "too_large"),
        (["delete", 1, "é" * 2049], "too_large"),
        (["put", 1, "k", bytes((8 << 20) + 1)], "too_large"),
        (["send", 1, "é" * ((1 << 19) + 1)], "too_large"),
    ],
)
def test_what_is_over_a_limit_is_not_proposed(
    tmp_path: Path, request_: list[Any], code: str
) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        assert error((await client.ask(request_))[0])["code"] == code
        assert node.machine.last_applied == 0

    with_node(tmp_path, check)


@pytest.mark.parametrize(
    "request_",
    [
        ["put", 1, "é" * 2048, b"v"],
        ["put", 1, "k", bytes(8 << 20)],
        ["send", 1, "é" * (1 << 19)],
        ["send", 1, ""],
    ],
)
def test_what_is_just_within_a_limit_is_served(tmp_path: Path, request_: list[Any]) -> None:
    async def check(client: RawClient, _node: SingleNode) -> None:
        assert result((await client.ask(request_))[0])["index"] == 1

    with_node(tmp_path, check)


@pytest.mark.parametrize("op", ["txns", "mail", "debug", "", "PUT", "x" * 1000])
def test_an_op_of_another_version_is_named(tmp_path: Path, op: str) -> None:
    async def check(client: RawClient, _node: SingleNode) -> None:
        replies = await client.ask([op, 1, {"any": ["thing"]}], ["put", 2, "k", b"v"])
        assert error(replies[0])["code"] == "not_in_this_version"
        assert f'"{op[:40]}" is not in this version' in error(replies[0])["error"]
        assert result(replies[1])["index"] == 1

    with_node(tmp_path, check)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (["put", 1, "k"], "length 4"),
        (["put", 1, 5, b""], "Expected `str`, got `int`"),
        (["get", 1, "k", "sometimes"], "sometimes"),
        (["put", 1, "k", b"", -2], "Expected `int` >= -1"),
        (["messages", 1, -1], "Expected `int` >= 0"),
        (["messages", 1, 2**63], "Expected `int` <= 9223372036854775807"),
        ([7, 1], "Expected `str`"),
    ],
)
def test_a_request_with_wrong_fields_fails_alone(
    tmp_path: Path, request_: list[Any], reason: str
) -> None:
    async def check(client: RawClient, _node: SingleNode) -> None:
        replies = await client.ask(["put", 0, "k", b"v"], request_, ["get", 2, "k"])
        assert result(replies[0])["index"] == 1
        assert error(replies[1])["code"] == "bad_request"
        assert reason in error(replies[1])["error"]
        assert result(replies[2])["value"] == b"v"

    with_node(tmp_path, check)


def test_json_has_values_in_base64_both_ways(tmp_path: Path) -> None:
    async def check(client: RawClient, _node: SingleNode) -> None:
        replies = await client.ask(["put", 1, "k", "AP8="], as_json=True)
        assert result(replies[0])["index"] == 1
        replies = await client.ask(["get", 2, "k"], ["get", 3, "x"], ["txns", 4], as_json=True)
        assert result(replies[0])["value"] == "AP8="
        assert error(replies[1])["code"] == "key_not_found"
        assert error(replies[2])["code"] == "not_in_this_version"
        assert result((await client.ask(["get", 5, "k"]))[0])["value"] == b"\x00\xff"
        replies = await client.ask(["put", 1, "k", "no base64!"], as_json=True)
        assert error(replies[0])["code"] == "bad_request"

    with_node(tmp_path, check)


def test_a_bug_in_one_handler_fails_one_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        node.status = lambda: 1 // 0  # type: ignore[method-assign,assignment,return-value]
        replies = await client.ask(["status", 1], ["put", 2, "k", b"v"])
        assert error(replies[0])["code"] == "internal"
        assert result(replies[1])["index"] == 1

    with_node(tmp_path, check)
    assert "request Status failed" in caplog.text


def test_there_is_a_handler_for_every_request_of_the_protocol() -> None:
    kinds = set(Request.__args__)
    assert set(RequestHandlers(SingleNode(), Crowd(()))._handlers) == kinds
    assert set(protocol.RESULT_TYPES) == kinds


def test_an_entry_of_the_machine_is_a_key_on_the_wire() -> None:
    entry = Entry("k", b"v", 3, 2, 1)
    same = protocol.KeyValue("k", b"v", 3, 2, 1)
    encoded = protocol.ENCODER.encode(entry)
    assert msgspec.msgpack.decode(encoded, type=protocol.KeyValue) == same
