"""A node whose state is wrong answers nothing from it, and says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raft_agent.api import protocol
from raft_agent.api.client import Client, RequestFailed
from raft_agent.api.host import Failure
from raft_agent.api.protocol import ErrorCode
from raft_agent.api.requests import _OF_STATE
from raft_agent.machine.commands import Put
from tests.unit.api.raw_client import RawClient, connected, with_node
from tests.unit.api.single_node import SingleNode, run, serving

WRONG = Failure(ErrorCode.STATE_DIFFERS, "This node's state differs", "raftctl rebuild")

ASKED: list[list[Any]] = [
    ["send", 1, "text"],
    ["messages", 1],
    ["watch_messages", 1],
    ["put", 1, "k", b"v"],
    ["delete", 1, "k"],
    ["get", 1, "k"],
    ["get", 1, "k", "stale"],
    ["get", 1, "k", "lease"],
    ["list", 1, ""],
    ["watch_keys", 1, "k"],
    ["snapshot_save", 1],
    ["txn", 1, [], [["put", "k", b"v"]]],
    ["lease_grant", 1, 5_000],
    ["lease_keepalive", 1, 1],
    ["lease_revoke", 1, 1],
    ["lease_list", 1],
    ["lease_show", 1, 1],
    ["open_session", 1, 5_000],
    ["keep_session", 1, 1],
    ["close_session", 1, 1],
    ["settings_list", 1],
    ["setting_set", 1, "messages_keep", 5],
    ["export_add", 1, "x/", "m", "hash", "u32", "u32", 10],
    ["export_remove", 1, "m"],
]

# Writes that are about the members and this node, not about the state.
OF_THE_CLUSTER = {
    protocol.Join,
    protocol.JoinSelf,
    protocol.Leave,
    protocol.MemberPromote,
    protocol.MemberUpdate,
    protocol.LeaderTransfer,
    protocol.Recover,
    protocol.Rebuild,
}


def test_each_write_is_known_to_change_the_state_or_not_to() -> None:
    assert set(protocol.WRITES) - _OF_STATE == OF_THE_CLUSTER


def test_all_that_reads_or_changes_the_state_is_asked_here() -> None:
    asked = {str(request[0]) for request in ASKED}
    assert asked == {kind.__struct_config__.tag for kind in _OF_STATE}


@pytest.mark.parametrize("request_", ASKED, ids=lambda request: "-".join(map(str, request[:1])))
def test_nothing_of_a_wrong_state_is_served(tmp_path: Path, request_: list[Any]) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        node.unfit = WRONG
        before = node.machine.last_applied
        (reply,) = await client.ask(request_)
        assert reply[2] is None
        assert (reply[1]["code"], reply[1]["hint"]) == ("state_differs", "raftctl rebuild")
        assert node.machine.last_applied == before

    with_node(tmp_path, check)


@pytest.mark.parametrize(
    "request_", [["status", 1], ["health", 1], ["member_list", 1], ["vitals", 1], ["events", 1]]
)
def test_what_the_node_is_can_be_asked_all_the_same(tmp_path: Path, request_: list[Any]) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        node.unfit = WRONG
        (reply,) = await client.ask(request_)
        assert reply[1] is None

    with_node(tmp_path, check)


def test_a_rebuilt_node_serves_again(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        (refused,) = await client.ask(["rebuild", 1])
        assert refused[1]["code"] == "refused"
        node.unfit = WRONG
        (reply,) = await client.ask(["rebuild", 2])
        assert reply[2] == {"reason": "This node's state differs"}
        assert node.rebuilt == [False]
        (written,) = await client.ask(["put", 3, "k", b"v"])
        assert written[1] is None

    with_node(tmp_path, check)


def test_states_are_compared_on_demand(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        await client.ask(["put", 1, "k", b"v"])
        (reply,) = await client.ask(["state_check", 2])
        assert reply[2]["agreed"] is True
        assert [member["state"] for member in reply[2]["members"]] == ["agrees"]
        first = reply[2]["members"][0]["digest"]
        (flipped,) = await client.ask(["fault_flip", 3, "k"])
        assert flipped[1:] == [None, None]
        (later,) = await client.ask(["state_check", 4])
        assert later[2]["members"][0]["digest"] != first
        assert node.machine.get("k").value == b"w"  # type: ignore[union-attr]
        (missing,) = await client.ask(["fault_flip", 5, "none"])
        assert missing[1]["code"] == "key_not_found"

    with_node(tmp_path, check)


def test_watches_end_with_the_reason_and_events_go_on(tmp_path: Path) -> None:
    async def main() -> None:
        node, path = SingleNode(), tmp_path / "node-01.sock"
        async with serving(node, path) as server, connected(path) as client:
            await client.ask(["watch_keys", 7, "k"])
            await client.ask(["events", 8, 0, True])
            server.end_streams(WRONG)
            (ended,) = await client.items()
            assert (ended[0], ended[1]["code"]) == (7, "state_differs")
            node.happen("state_differs")
            (event,) = await client.items()
            assert (event[0], event[1]) == (8, None)

    run(main())


@pytest.mark.parametrize(
    "request_",
    [["get", 1, "k"], ["get", 1, "k", "lease"], ["lease_list", 1], ["snapshot_save", 1]],
    ids=["get", "lease", "lease_list", "snapshot_save"],
)
def test_a_read_that_waited_while_the_state_became_unfit_is_refused(
    tmp_path: Path, request_: list[Any]
) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        await client.ask(["put", 2, "k", b"v"])
        barrier = node.read_barrier

        def read_barrier(done: Any, *, lease: bool = False) -> None:
            node.unfit = WRONG
            barrier(done, lease=lease)

        node.read_barrier = read_barrier  # type: ignore[method-assign]
        (reply,) = await client.ask(request_)
        assert reply[1]["code"] == "state_differs"

    with_node(tmp_path, check)


def test_a_backup_of_a_state_that_is_found_to_be_unfit_meanwhile_does_not_come_to_its_end(
    tmp_path: Path,
) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        await client.ask(["put", 2, "k", b"v"])
        begin = node.begin_backup

        def begin_backup() -> Any:
            backup = begin()
            node.unfit = WRONG
            return backup

        node.begin_backup = begin_backup  # type: ignore[method-assign]
        (started,) = await client.ask(["snapshot_save", 1])
        assert started[1] is None
        items = await client.items()
        while items[-1][1] is None:
            items = await client.items()
        assert items[-1][1]["code"] == "state_differs"
        assert not node.machine._views

    with_node(tmp_path, check)


def test_a_client_of_several_members_goes_on_to_one_whose_state_is_right(tmp_path: Path) -> None:
    async def main() -> None:
        wrong, right = SingleNode(), SingleNode("node-02")
        wrong.unfit = WRONG
        paths = [tmp_path / "1.sock", tmp_path / "2.sock"]
        async with (
            serving(wrong, paths[0]),
            serving(right, paths[1]),
            Client([str(path) for path in paths]) as client,
        ):
            await client.put("k", b"v")
            assert (await client.get("k")).value == b"v"
        assert wrong.machine.last_applied == 0

    run(main())


@pytest.mark.parametrize("is_known_before", [False, True])
def test_a_watch_goes_on_at_a_member_whose_state_is_right(
    tmp_path: Path, is_known_before: bool
) -> None:
    async def main() -> None:
        wrong, right = SingleNode(), SingleNode("node-02")
        for node in (wrong, right):
            node.apply_commands([Put("k", b"1")])
        if is_known_before:
            wrong.unfit = WRONG
        paths = [tmp_path / "1.sock", tmp_path / "2.sock"]
        async with (
            serving(wrong, paths[0]) as server,
            serving(right, paths[1]),
            Client(paths) as client,
            client.watch_keys("k", from_revision=1) as watch,
        ):
            assert (await anext(watch)).value == b"1"
            wrong.unfit = WRONG
            server.end_streams(WRONG)
            right.apply_commands([Put("k", b"2"), Put("k", b"3")])
            assert [(await anext(watch)).value for _ in range(2)] == [b"2", b"3"]

    run(main())


def test_a_watch_of_the_only_member_that_is_asked_ends_with_the_reason(tmp_path: Path) -> None:
    async def main() -> None:
        node, path = SingleNode(), tmp_path / "1.sock"
        async with serving(node, path) as server, Client(path) as client:
            async with client.watch_keys("k") as watch:
                node.unfit = WRONG
                server.end_streams(WRONG)
                with pytest.raises(RequestFailed, match="state differs"):
                    await anext(watch)
            with pytest.raises(RequestFailed, match="state differs"):
                await client.watch_keys("k").start()

    run(main())
