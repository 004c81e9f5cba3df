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

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is Linux's")


@pytest.fixture
def tcp_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    with one, other:
        yield one, other


@linux_only
def test_silence_grows_until_data_arrives(tcp_pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = tcp_pair
    sender.sendall(b"x")
    select.select([receiver], [], [])
    begin = time.monotonic()
    while (platform.tcp_silence_us(receiver) or 0) < 200_000:
        select.select([], [], [], 0.01)
    # The kernel counts in ticks of up to 10 ms and may be one off.
    assert time.monotonic() - begin >= 0.180
    sender.sendall(b"y")
    select.select([sender], [], [], 0)
    deadline = time.monotonic() + 60
    while (silence_us := platform.tcp_silence_us(receiver)) is None or silence_us >= 200_000:
        assert time.monotonic() < deadline


@linux_only
def test_unread_data_ends_the_silence_and_sending_does_not(
    tcp_pair: tuple[socket.socket, socket.socket],
) -> None:
    sender, receiver = tcp_pair
    sender.sendall(b"x")
    select.select([receiver], [], [])
    while (platform.tcp_silence_us(receiver) or 0) < 100_000:
        receiver.send(b"z")
        select.select([], [], [], 0.01)
    assert (platform.tcp_silence_us(sender) or 0) < (platform.tcp_silence_us(receiver) or 0)


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
