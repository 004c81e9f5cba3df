"""What somebody does about the cluster itself is told to the host, with its outcome."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import pytest

from raft_agent.api import protocol, rights
from raft_agent.api.audit import described, is_audited
from raft_agent.api.host import Failure
from tests.unit.api.raw_client import RawClient, with_node
from tests.unit.api.single_node import SingleNode

WHO = f"client pid {os.getpid()} uid {os.getuid()}"


@pytest.mark.parametrize(
    "kind",
    [
        *protocol.MembershipRequest.__args__,
        protocol.SettingSet,
        protocol.LeaderTransfer,
        protocol.FaultSet,
        protocol.FaultHeal,
        protocol.ExportAdd,
        protocol.ExportRemove,
    ],
)
def test_what_changes_the_cluster_is_audited(kind: type[protocol.Request]) -> None:
    assert is_audited(kind)


def test_reads_and_writes_of_data_are_not_audited() -> None:
    assert not any(map(is_audited, (protocol.Get, protocol.Put, protocol.Txn, protocol.Status)))


def test_a_line_has_the_fields_that_were_given() -> None:
    assert described(protocol.Leave(7, "node-03", force=True)) == "leave name=node-03 force=true"
    assert described(protocol.SettingSet(7, "messages_keep", 5, forward=True)) == (
        "setting_set name=messages_keep value=5"
    )


@pytest.mark.parametrize("name", ["node-03: done", "x force=true", "a\nb", "\u202etext", ""])
def test_a_name_can_not_pass_for_the_rest_of_the_line(name: str) -> None:
    assert described(protocol.Leave(7, name)) == f"leave name={name!a}"


def test_a_proof_is_not_told() -> None:
    request = protocol.JoinSelf(7, "node-04", "192.0.2.4:5555", b"nonce", b"proof")
    assert described(request) == "join_self name=node-04 address=192.0.2.4:5555"


def test_each_outcome_is_told_once_it_is_known(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        await client.ask(["setting_set", 1, "messages_keep", 5])
        await client.ask(["setting_set", 2, "no_such_setting", 5])
        await client.ask(["leave", 3, "node-09"])
        await client.ask(["leave", 4, "node-01"])
        await client.ask(["leader_transfer", 5, "node-09"])
        await client.ask(["fault_set", 6, "node-02", 10, 1000])
        assert {who for who, _, _ in node.audits} == {WHO}
        told = [(what, outcome) for _, what, outcome in node.audits]
        assert told[0] == ("setting_set name=messages_keep value=5", "done")
        assert told[1][1].startswith("bad_request: ")
        assert told[2] == ("leave name=node-09", "done")
        assert told[3] == ("leave name=node-01", "quorum_at_risk: The last voter can't go")
        assert told[4][1].startswith("no_such_member: ")
        assert told[5] == ("fault_set peer=node-02 per_mille=10 duration_ms=1000", "done")
        assert len(told) == 6

    with_node(tmp_path, check)


def test_requests_of_one_frame_are_answered_each_with_its_own(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        replies = await client.ask(
            ["put", 1, "a", b"1"], ["setting_set", 2, "messages_keep", 5], ["put", 3, "b", b"2"]
        )
        assert [(reply[0], reply[1]) for reply in replies] == [(1, None), (2, None), (3, None)]
        assert [entry.key for entry in node.machine.list("", 10, "")[0]] == ["a", "b"]
        assert [what for _, what, _ in node.audits] == ["setting_set name=messages_keep value=5"]

    with_node(tmp_path, check)


def test_who_is_denied_is_audited_too(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        await client.ask(["leave", 1, "node-09"], ["put", 2, "k", b"v"])
        assert node.audits == [
            ("client pid 123 uid 4711", "leave name=node-09", "permission_denied")
        ]

    with mock.patch.object(rights, "peer_credentials", return_value=(123, 4711, 4711)):
        with_node(tmp_path, check)


def test_a_change_that_an_unfit_node_refuses_is_audited(tmp_path: Path) -> None:
    node = SingleNode()
    node.unfit = Failure(protocol.ErrorCode.STATE_DIFFERS, "Its state differs")

    async def check(client: RawClient, node: SingleNode) -> None:
        await client.ask(["setting_set", 1, "messages_keep", 5])
        assert [outcome for _, _, outcome in node.audits] == ["state_differs: Its state differs"]

    with_node(tmp_path, check, node)


def test_a_host_that_fails_is_audited_as_that(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        with mock.patch.object(node, "set_fault", side_effect=RuntimeError("broken")):
            [reply] = await client.ask(["fault_set", 1, "node-02", 10, 1000])
        assert reply[1]["code"] == "internal"
        assert node.audits[0][2] == "internal: RuntimeError('broken')"

    with_node(tmp_path, check)


def test_a_node_that_asks_in_vain_to_be_let_in_fills_no_log(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        # The test's host refuses whoever bears its own name.
        await client.ask(["join_self", 1, "node-01", "192.0.2.4:5555", b"nonce", b"proof"])
        assert node.audits == []
        await client.ask(["join_self", 2, "node-04", "192.0.2.4:5555", b"nonce", b"proof"])
        assert [outcome for _, _, outcome in node.audits] == ["done"]

    with_node(tmp_path, check)
