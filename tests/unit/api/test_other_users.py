"""Real processes of other users at the Unix socket, whose mode somebody has opened."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from raft_agent import wire
from tests.unit.api.raw_client import TYPES, request_frame
from tests.unit.cli.served import Served, serving

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: to become other users")

UID, GID = 54_321, 54_322


@pytest.fixture
def served() -> Iterator[Served]:
    """A node whose socket everybody can open."""
    directory = Path(tempfile.mkdtemp(prefix="raft-users-"))
    directory.chmod(0o755)
    try:
        with serving(directory / "s") as node:
            (directory / "s").chmod(0o666)
            yield node
    finally:
        shutil.rmtree(directory)


def asks_as(uid: int, gid: int, groups: list[int], path: Path) -> str | None:
    """The code of the error that a process of this user gets for a status; None for an answer."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        # Nothing but system calls: the other threads of this process are not here.
        try:
            os.setgroups(groups)
            os.setgid(gid)
            os.setuid(uid)
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(10)
                connection.connect(str(path))
                connection.sendall(request_frame([["status", 1]]))
                os.write(write_end, connection.recv(1 << 16))
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    [frame] = wire.FrameReader(TYPES).feed(answer)
    [[_, error, _]] = msgspec.msgpack.decode(frame.body)
    return None if error is None else error["code"]


def test_the_agents_user_is_served_and_another_one_denied(served: Served) -> None:
    assert asks_as(0, 0, [], served.path) is None
    assert asks_as(UID, GID, [], served.path) == "permission_denied"


@pytest.mark.parametrize(
    ("gid", "groups"), [(GID, []), (UID, [GID]), (UID, [*range(60_000, 60_100), GID])]
)
def test_members_of_the_group_are_served_and_others_denied(
    served: Served, gid: int, groups: list[int]
) -> None:
    assert asks_as(UID, gid, groups, served.path) == "permission_denied"
    listener = served.server._listener
    assert listener is not None
    served.call(setattr, listener, "group_id", GID)
    assert asks_as(UID, gid, groups, served.path) is None
    assert asks_as(UID, UID, [60_000], served.path) == "permission_denied"
