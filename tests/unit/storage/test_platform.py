"""What the kernel says of sockets, asked of real ones."""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from raft_agent import platform
from raft_agent.storage.files import create_zeroed

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is Linux's")


@pytest.fixture
def tcp_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    with one, other:
        yield one, other


def wait_for_silence(sock: socket.socket, silence_us: int) -> None:
    while (platform.tcp_silence_us(sock) or 0) < silence_us:
        select.select([], [], [], 0.01)


def zeroed(path: Path, size_bytes: int) -> bytes:
    os.close(create_zeroed(path, size_bytes))
    return path.read_bytes()


@linux_only
def test_silence_grows_until_data_arrives(tcp_pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = tcp_pair
    begin = time.monotonic()
    sender.sendall(b"x")
    select.select([receiver], [], [])
    wait_for_silence(receiver, 200_000)
    # The kernel counts in ticks of up to 10 ms and may be one off at either end.
    assert time.monotonic() - begin >= 0.180
    assert receiver.recv(1) == b"x"
    assert (platform.tcp_silence_us(receiver) or 0) >= 200_000
    begin = time.monotonic()
    sender.sendall(b"y")
    select.select([receiver], [], [])
    silence_us = platform.tcp_silence_us(receiver)
    assert silence_us is not None
    assert silence_us <= (time.monotonic() - begin) * 1e6 + 20_000


@linux_only
def test_sending_does_not_end_the_silence(tcp_pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = tcp_pair
    sender.sendall(b"x")
    select.select([receiver], [], [])
    wait_for_silence(receiver, 200_000)
    receiver.sendall(b"z")
    select.select([sender], [], [])
    heard_us, silent_us = platform.tcp_silence_us(sender), platform.tcp_silence_us(receiver)
    assert heard_us is not None
    assert silent_us is not None
    assert heard_us < silent_us - 100_000


def test_other_sockets_know_no_silence() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert platform.tcp_silence_us(one) is None


def test_a_unix_socket_knows_who_connected(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(path)
        server.listen()
        client.connect(path)
        connection, _ = server.accept()
        with connection:
            assert platform.peer_credentials(connection) == (
                os.getpid(),
                os.geteuid(),
                os.getegid(),
            )


def test_a_tcp_socket_does_not_know_who_connected(
    tcp_pair: tuple[socket.socket, socket.socket],
) -> None:
    with pytest.raises(OSError, match="Unix socket"):
        platform.peer_credentials(tcp_pair[0])


@linux_only
def test_zeros_go_past_the_page_cache_where_the_file_system_takes_them(tmp_path: Path) -> None:
    path = tmp_path / "zeros"
    path.write_bytes(b"x" * (3 << 20))
    if platform.write_zeros_directly(path, 2 << 20):
        assert path.read_bytes() == bytes(2 << 20) + b"x" * (1 << 20)
    assert zeroed(tmp_path / "other", 2 << 20) == bytes(2 << 20)


@linux_only
def test_a_file_whose_size_is_no_multiple_of_a_block_is_zeros_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "zeros"
    path.touch()
    assert not platform.write_zeros_directly(path, (1 << 20) + 100)
    assert zeroed(tmp_path / "other", (1 << 20) + 100) == bytes((1 << 20) + 100)
