"""The socket file: its rights, stale ones, and those of agents that live."""

from __future__ import annotations

import asyncio
import grp
import os
import socket
import stat
from pathlib import Path

import pytest

from raft_agent.api.connection import ClientConnection
from raft_agent.api.listener import SocketUnavailableError, UnixListener
from raft_agent.api.server import ApiServer
from tests.unit.api.single_node import SingleNode, run, serving


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def leave_stale_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o177, 0o777])
def test_the_socket_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "s"
    before = os.umask(umask)
    try:
        listener = UnixListener(path, None)
    finally:
        os.umask(before)
    assert mode_of(path) == 0o600
    listener.socket.close()
    assert list(tmp_path.iterdir()) == [path]


def test_a_group_may_be_let_in(tmp_path: Path) -> None:
    path = tmp_path / "s"
    group = grp.getgrgid(os.getegid()).gr_name
    listener = UnixListener(path, group)
    assert mode_of(path) == 0o660
    assert path.stat().st_gid == os.getegid()
    listener.socket.close()


def test_the_name_appears_with_its_final_rights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    seen: list[int] = []
    chmod = Path.chmod

    def looking(self: Path, mode: int) -> None:
        assert not path.exists()
        if self.is_socket():
            seen.append(mode_of(self.parent))
        chmod(self, mode)

    monkeypatch.setattr(Path, "chmod", looking)
    UnixListener(path, None).socket.close()
    assert seen == [0o700]


def test_a_group_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(SocketUnavailableError, match='no group "no-such-group"'):
        UnixListener(tmp_path / "s", "no-such-group")
    assert list(tmp_path.iterdir()) == []


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    leave_stale_socket(path)
    listener = UnixListener(path, None)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listener.socket.close()


def test_an_agent_that_lives_keeps_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listener = UnixListener(path, None)
    with pytest.raises(SocketUnavailableError, match=f"another agent answers at {path}"):
        UnixListener(path, None)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listener.socket.close()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(SocketUnavailableError, match="is no socket"):
        UnixListener(path, None)
    assert path.read_text() == "precious"


def test_a_directory_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(SocketUnavailableError, match=f"can't make a socket in {tmp_path}/none"):
        UnixListener(tmp_path / "none" / "s", None)


def test_a_path_that_is_too_long_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    with pytest.raises(SocketUnavailableError, match="at most about 100 bytes"):
        UnixListener(deep / "s", None)
    assert list(deep.iterdir()) == []


def test_a_closed_server_leaves_no_socket_behind(tmp_path: Path) -> None:
    path = tmp_path / "s"

    async def main() -> None:
        async with serving(SingleNode(), path):
            assert path.is_socket()
        assert not path.exists()

    run(main())


def test_a_server_does_not_remove_the_socket_of_its_successor(tmp_path: Path) -> None:
    path = tmp_path / "s"

    async def main() -> None:
        async with serving(SingleNode("old"), path):
            path.unlink()
            successor = ApiServer(SingleNode("new"), socket_path=path, group=None)
            await successor.start()
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.close()
        await successor.close()
        assert not path.exists()
        assert await reader.read() == b""

    run(main())


def test_a_client_that_connects_while_the_server_closes_is_let_go(tmp_path: Path) -> None:
    """Between being accepted and being connected it is nobody's yet."""
    path = tmp_path / "s"

    async def main() -> None:
        loop = asyncio.get_running_loop()
        closing: asyncio.Future[asyncio.Task[None]] = loop.create_future()

        class ClosedByItsClient(ApiServer):
            def _accept(self) -> ClientConnection:
                connection = super()._accept()
                closing.set_result(loop.create_task(self.close()))
                return connection

        server = ClosedByItsClient(SingleNode(), socket_path=path, group=None)
        await server.start()
        reader, writer = await asyncio.open_unix_connection(str(path))
        await (await closing)
        assert await reader.read() == b""
        writer.close()

    run(main())
