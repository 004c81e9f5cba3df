"""Who may ask what: roles of certificates, the owner and the group of the Unix socket."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import pytest

from raft_agent.api import protocol, rights
from raft_agent.api.rights import LEAST_ROLE, Principal, denial, of_identity, of_socket
from raft_agent.tls.identity import Identity, Kind, Role
from tests.unit.api.raw_client import RawClient, with_node
from tests.unit.api.single_node import SingleNode

ADDRESS = "192.0.2.1:40000"


def client(role: Role | None) -> Principal:
    return of_identity(Identity(Kind.CLIENT, "alice", role), ADDRESS)


def sample(kind: type[protocol.Request]) -> protocol.Request:
    """A request of this kind; what its fields hold does not matter here."""
    required = [field for field in msgspec.structs.fields(kind) if field.required]
    return kind(*(1 for _ in required))


def may(role: Role | None, kind: type[protocol.Request]) -> bool:
    return denial(client(role), sample(kind)) is None


def test_every_kind_of_request_has_a_least_role() -> None:
    assert LEAST_ROLE.keys() == protocol.RESULT_TYPES.keys()


@pytest.mark.parametrize("kind", LEAST_ROLE)
def test_a_role_may_what_it_reaches_and_nothing_else(kind: type[protocol.Request]) -> None:
    order = [Role.READER, Role.WRITER, Role.ADMIN]
    least = order.index(LEAST_ROLE[kind])
    assert [may(role, kind) for role in order] == [place >= least for place in range(3)]


@pytest.mark.parametrize("kind", LEAST_ROLE)
def test_without_a_role_there_is_no_right(kind: type[protocol.Request]) -> None:
    assert not may(None, kind)


def test_a_reader_changes_nothing() -> None:
    assert not [kind for kind in protocol.WRITES if may(Role.READER, kind)]


def test_a_writer_changes_neither_members_nor_settings() -> None:
    for kind in (*protocol.MembershipRequest.__args__, protocol.SettingSet, protocol.FaultSet):
        assert not may(Role.WRITER, kind)


def test_a_request_that_nobody_has_given_a_role_takes_the_highest() -> None:
    with mock.patch.dict(rights.LEAST_ROLE, clear=True):
        assert not may(Role.WRITER, protocol.Status)
        assert may(Role.ADMIN, protocol.Status)


def test_a_nodes_certificate_is_no_clients() -> None:
    principal = of_identity(Identity(Kind.NODE, "node-02"), ADDRESS)
    error = denial(principal, protocol.Status(1))
    assert error is not None
    assert "raftctl cert client" in error.error


def test_a_denial_says_what_would_do() -> None:
    error = denial(client(Role.READER), protocol.Leave(1, "node-03"))
    assert error is not None
    assert error.code is protocol.ErrorCode.PERMISSION_DENIED
    assert error.error == (
        "Permission denied: leave takes the role admin, and client alice (reader) at "
        "192.0.2.1:40000 has the role reader"
    )
    assert "raftctl cert client NAME --role admin" in error.hint


# --- the Unix socket ------------------------------------------------------------------------------


def from_uid(uid: int, gid: int = 77, groups: frozenset[int] = frozenset()) -> Any:
    return mock.patch.multiple(
        rights,
        peer_credentials=lambda _socket: (123, uid, gid),
        peer_groups=lambda _socket: groups,
    )


@pytest.fixture
def end() -> Any:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        yield one


def test_the_owner_of_the_socket_may_everything(end: socket.socket) -> None:
    assert of_socket(end, None) == Principal(
        f"client pid {os.getpid()} uid {os.getuid()}", Role.ADMIN
    )


def test_root_may_everything(end: socket.socket) -> None:
    with mock.patch.object(os, "geteuid", return_value=1000), from_uid(0):
        assert of_socket(end, None).role is Role.ADMIN


def test_another_user_may_nothing_even_when_the_file_lets_him_in(end: socket.socket) -> None:
    with from_uid(4711):
        principal = of_socket(end, None)
    assert principal.role is None
    error = denial(principal, protocol.Status(1))
    assert error is not None
    assert "client pid 123 uid 4711 is neither" in error.error


@pytest.mark.parametrize(
    ("gid", "groups"), [(55, frozenset[int]()), (77, frozenset({55})), (77, frozenset({1, 55}))]
)
def test_a_member_of_the_ipc_group_may_everything(
    end: socket.socket, gid: int, groups: frozenset[int]
) -> None:
    with from_uid(4711, gid, groups):
        assert of_socket(end, 55).role is Role.ADMIN
        assert of_socket(end, 56).role is None
        assert of_socket(end, None).role is None


def test_the_kernel_tells_the_groups_of_whoever_connected(tmp_path: Path) -> None:
    from raft_agent.platform import peer_groups  # noqa: PLC0415

    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert peer_groups(one) == frozenset(os.getgroups())


def test_a_client_without_rights_gets_one_clear_error_for_each_request(tmp_path: Path) -> None:
    async def check(client: RawClient, node: SingleNode) -> None:
        replies = await client.ask(["status", 1], ["put", 2, "k", b"v"], ["leave", 3, "node-09"])
        assert [reply[1]["code"] for reply in replies] == ["permission_denied"] * 3
        assert node.batches == 0
        assert node.membership_requests == []

    with from_uid(4711):
        with_node(tmp_path, check)


def test_a_stream_is_no_way_around(tmp_path: Path) -> None:
    async def check(client: RawClient, _node: SingleNode) -> None:
        [reply] = await client.ask(["watch_keys", 1, "k"])
        assert reply[1]["code"] == "permission_denied"

    with from_uid(4711):
        with_node(tmp_path, check)
