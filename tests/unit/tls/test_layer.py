"""TLS under an asyncio protocol: what is written to a connection that has failed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from raft_agent import wire
from raft_agent.tls.channel import Channel
from raft_agent.tls.credentials import Credentials
from raft_agent.tls.identity import Kind
from raft_agent.tls.layer import Layer
from raft_agent.wire import FrameError, FrameType
from tests.unit.tls.papers import Office, node

FRAME = wire.encode(FrameType.CLIENT_REPLY, b"\x90")


class Tcp(asyncio.Transport):
    """Keeps what is written, until it is closed; its end comes a turn of the loop later."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.is_closed = False

    def write(self, data: Any) -> None:
        self.sent.append(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def take(self) -> bytes:
        data, self.sent = b"".join(self.sent), []
        return data


class Frames(asyncio.Protocol):
    """Who speaks frames."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.end: Exception | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.end = exc


@pytest.mark.parametrize("how", ["bad records", "closed", "aborted"])
def test_what_is_written_to_a_connection_that_has_ended_is_dropped(
    tmp_path: Path, how: str
) -> None:
    """An answer may come between the failure and the moment in which its connection is lost; to
    write it was an error with a traceback, as often as a client liked."""
    credentials = Credentials(Office(tmp_path).issue(node("node-01")), Kind.NODE)
    frames, tcp = Frames(), Tcp()
    server = Channel(credentials.server_context(), server_side=True)
    layer = Layer(server, frames, credentials.check)
    client = Channel(credentials.client_context(), server_side=False)
    layer.connection_made(tcp)
    while not (client.is_open and server.is_open):
        layer.data_received(client.take())
        client.feed(tcp.take())
    frames.transport.write(FRAME)
    assert client.feed(tcp.take()) == FRAME
    if how == "bad records":
        layer.data_received(wire.bare_header(FrameType.TLS_FRAME, 99) + bytes(99))
        assert wire.type_of(tcp.take()) == FrameType.TLS_HANDSHAKE  # the alert
    elif how == "closed":
        frames.transport.close()
    else:
        frames.transport.abort()
    frames.transport.write(FRAME)
    frames.transport.writelines([FRAME, FRAME])
    assert tcp.sent == []
    layer.connection_lost(None)
    assert isinstance(frames.end, FrameError) is (how == "bad records")
