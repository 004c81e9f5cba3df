"""Requests of this version's that change something, or tell of it: sessions, settings, members."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raft_agent.api import protocol
from raft_agent.api.server import ApiServer
from raft_agent.machine.commands import Put, SetSetting
from tests.unit.api.raw_client import Check, RawClient, connected, with_node
from tests.unit.api.single_node import SingleNode, run, serving

ID = bytes(range(16))


def with_follower(tmp_path: Path, check: Check) -> None:
    """`check(client of a follower, its leader)`."""
    follower, leader = SingleNode("node-02"), SingleNode("node-01")
    follower.leader = "node-01"

    async def main() -> None:
        path = tmp_path / "f"
        async with serving(leader, tmp_path / "l") as api, serving(follower, path):
            follower.leader_api = api
            async with connected(path) as client:
                await check(client, leader)

    run(main())


def code(reply: Any) -> str:
    assert reply[1] is not None, reply
    return str(reply[1]["code"])


def writes(once: Any) -> list[list[Any]]:
    return [
        ["put", 1, "k", b"v", -1, False, once],
        ["delete", 1, "k", -1, False, once],
        ["send", 1, "hi", False, "", once],
    ]


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("kind", ["session", "one_shot"])
def test_a_write_that_is_sent_twice_is_applied_once(tmp_path: Path, kind: str, place: int) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        [opened] = await client.ask(["open_session", 9, 10_000])
        once = (
            ["session", opened[2]["session"], 1, 1]
            if kind == "session"
            else ["one_shot", ID, node.time_ms + 1000]
        )
        await client.ask(["put", 1, "k", b"old"])
        first = await client.ask(writes(once)[place])
        revision, messages = node.machine.revision, node.machine.messages(9)
        assert await client.ask(writes(once)[place]) == first
        assert first[0][2]["index"] == 3
        assert (node.machine.revision, node.machine.messages(9)) == (revision, messages)

    with_node(tmp_path, check)


def test_a_conflict_is_repeated_too(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        once = ["one_shot", ID, node.time_ms]
        refused = ["put", 1, "k", b"v", 7, False, once]
        first = await client.ask(refused)
        assert code(first[0]) == "conflict"
        for _ in range(7):
            await client.ask(["put", 2, "k", b""])
        assert await client.ask(refused) == first

    with_node(tmp_path, check)


def test_once_can_be_said_in_json(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        once = ["one_shot", "AAAAAAAAAAAAAAAAAAAAAA==", node.time_ms]
        for _ in range(2):
            [reply] = await client.ask(["put", 1, "k", "", -1, False, once], as_json=True)
            assert reply[2]["index"] == 1

    with_node(tmp_path, check)


@pytest.mark.parametrize(
    "once",
    [
        ["one_shot", b"short", 1],
        ["one_shot", ID, -1],
        ["session", -1, 0, 0],
        ["session", 1],
        ["other", 1, 2, 3],
        5,
    ],
)
def test_a_malformed_once_is_refused(tmp_path: Path, once: Any) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        assert code((await client.ask(writes(once)[0]))[0]) == "bad_request"
        assert node.machine.last_applied == 0

    with_node(tmp_path, check)


def test_deadlines_are_compared_with_the_logs_time(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        late = (await client.ask(writes(["one_shot", ID, node.time_ms - 1])[0]))[0]
        assert (code(late), late[1]["time_ms"]) == ("too_late", node.time_ms)
        early = (await client.ask(writes(["one_shot", ID, node.time_ms + 600_001])[0]))[0]
        assert (code(early), early[1]["time_ms"]) == ("bad_deadline", node.time_ms)
        assert node.machine.key_count() == 0

    with_node(tmp_path, check)


def test_a_session_is_kept_closed_and_expires(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        [opened] = await client.ask(["open_session", 1, 5000])
        session = opened[2]["session"]
        node.time_ms += 5000
        assert await client.ask(["keep_session", 2, session]) == [[2, None, None]]
        node.time_ms += 5000
        assert (await client.ask(writes(["session", session, 1, 1])[0]))[0][1] is None
        forgotten = await client.ask(
            ["put", 3, "k", b"", -1, False, ["session", session, 2, 2]],
            ["put", 4, "k", b"", -1, False, ["session", session, 1, 1]],
        )
        assert code(forgotten[1]) == "unknown_outcome"
        assert await client.ask(["close_session", 5, session]) == [[5, None, None]]
        gone = await client.ask(
            ["keep_session", 6, session],
            ["close_session", 7, session],
            ["put", 8, "k", b"", -1, False, ["session", session, 9, 2]],
        )
        assert [code(reply) for reply in gone] == ["session_expired"] * 3
        assert code((await client.ask(["open_session", 9, 999]))[0]) == "bad_request"

    with_node(tmp_path, check)


def test_settings_are_listed_and_set(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        [done] = await client.ask(["setting_set", 1, "messages_keep", 7])
        assert done[2] == {"index": 1, "term": 1, "revision": 0, "deleted": 0}
        [listed] = await client.ask(["settings_list", 2])
        values = {item["name"]: (item["value"], item["default"]) for item in listed[2]["settings"]}
        assert values == {"messages_keep": (7, 100_000), "history_keep": (10_000, 10_000)}
        assert all(item["meaning"] for item in listed[2]["settings"])
        [refused] = await client.ask(["setting_set", 3, "messages_keep", 0])
        assert code(refused) == "bad_request"
        assert "from 1 to 10000000" in refused[1]["error"]
        for value in (10**30, -(10**30)):
            [refused] = await client.ask(["setting_set", 4, "messages_keep", value], as_json=True)
            assert code(refused) == "bad_request"

    with_node(tmp_path, check)


def test_changes_of_the_members_reach_the_host(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        [joined] = await client.ask(["join", 1, "node-04", "127.0.0.1:1"])
        assert joined[2]["index"] == 7
        assert joined[2]["warnings"] == ["An even number of voters"]
        [refused] = await client.ask(["leave", 2, "node-01"])
        assert code(refused) == "quorum_at_risk"
        await client.ask(["join_self", 3, "node-05", "a:1", b"nonce", b"proof"])
        assert node.membership_requests == [
            (protocol.Join(1, "node-04", "127.0.0.1:1"), True),
            (protocol.Leave(2, "node-01"), True),
            (protocol.JoinSelf(3, "node-05", "a:1", b"nonce", b"proof"), True),
        ]
        assert (await client.ask(["join_challenge", 4]))[0][2] == {"nonce": b"nonce"}

    with_node(tmp_path, check)


def test_what_another_agent_passed_on_is_not_passed_on_again(tmp_path: Path) -> None:
    node = SingleNode()
    server = ApiServer(node, socket_path=tmp_path / "s", group=None)
    answers: list[bytes] = []
    request = protocol.MemberPromote(1, "node-04")
    server.serve_forwarded(protocol.ENCODER.encode(request), answers.append)
    assert node.membership_requests == [(request, False)]
    assert len(answers) == 1


def test_a_follower_passes_sessions_and_settings_on_when_asked_to(tmp_path: Path) -> None:
    async def check(client: RawClient, leader: SingleNode) -> None:
        [refused] = await client.ask(["open_session", 1, 5000])
        assert code(refused) == "not_leader"
        [opened] = await client.ask(["open_session", 1, 5000, True])
        session = opened[2]["session"]
        replies = await client.ask(
            ["keep_session", 2, session, True],
            ["put", 3, "k", b"", -1, True, ["session", session, 1, 1]],
            ["setting_set", 4, "history_keep", 5, True],
            ["close_session", 5, session, True],
        )
        assert all(reply[1] is None for reply in replies)
        assert leader.machine.settings.history_keep == 5

    with_follower(tmp_path, check)


def test_the_leader_lists_the_members_when_that_is_wanted(tmp_path: Path) -> None:
    async def check(client: RawClient, _leader: SingleNode) -> None:
        replies = await client.ask(["member_list", 1], ["member_list", 2, True])
        assert [reply[2]["members"][0]["name"] for reply in replies] == ["node-02", "node-01"]

    with_follower(tmp_path, check)


def test_lease_reads_share_a_barrier_of_their_own(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        await client.ask(["put", 1, "k", b"v"])
        replies = await client.ask(
            ["get", 1, "k", "lease"], ["list", 2, "", 9, "", "lease"], ["get", 3, "k"]
        )
        assert all(reply[1] is None for reply in replies)
        assert (node.barriers, node.lease_barriers) == (2, 1)

    with_node(tmp_path, check)


def test_stale_reads_say_how_old_they_may_be(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        node.apply_commands([Put("k", b"v")])
        for age_ms in (None, 0, 70):
            node.age_ms = age_ms
            replies = await client.ask(["get", 1, "k", "stale"], ["list", 2, "", 9, "", "stale"])
            assert [reply[2].get("age_ms") for reply in replies] == [age_ms, age_ms]
        assert "age_ms" not in (await client.ask(["get", 1, "k"]))[0][2]
        assert node.barriers == 1

    with_node(tmp_path, check)


def test_history_that_is_not_kept_can_not_be_watched(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        node.apply_commands([SetSetting("history_keep", 0)])
        node.apply_commands([Put("k", b"") for _ in range(3000)])
        oldest = node.machine.compacted_revision + 1
        [refused] = await client.ask(["watch_keys", 1, "k", False, oldest - 1])
        assert (code(refused), refused[1]["revision"]) == ("compacted", oldest)
        [stands] = await client.ask(["watch_keys", 1, "k", False, oldest])
        assert stands[1] is None

    with_node(tmp_path, check)
