"""Nodes with certificates, and the other end of a connection under TLS."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from raft_agent import wire
from raft_agent.tls.channel import Channel
from raft_agent.tls.credentials import Credentials
from raft_agent.tls.files import TlsFiles
from raft_agent.tls.identity import Kind
from raft_agent.transport import codec
from raft_agent.wire import FrameReader, FrameType
from tests.unit.tls.papers import Office, node
from tests.unit.transport.nodes import (
    HEARTBEAT,
    Node,
    RawPeer,
)

EVERYTHING = frozenset(FrameType)
HEARTBEAT_FRAME = codec.encode_message(2, HEARTBEAT)
REQUEST = wire.encode(FrameType.CLIENT_REQUEST, b"a request")


def credentials(files: TlsFiles, kind: Kind = Kind.NODE) -> Credentials:
    return Credentials(files, kind)


def secure(office: Office, member_id: int, **more: Any) -> Node:
    """A node with a certificate of its own."""
    return Node(
        member_id, credentials=credentials(office.issue(node(f"node-{member_id:02}"))), **more
    )


class TlsPeer:
    """One end of a connection under TLS in the test's own hands."""

    def __init__(self, raw: RawPeer, channel: Channel) -> None:
        self.raw = raw
        self.channel = channel
        self._reader = FrameReader(EVERYTHING)
        self._frames: list[wire.Frame] = []

    @classmethod
    async def dial(cls, to: Node, context: ssl.SSLContext) -> TlsPeer:
        peer = cls(await RawPeer.dial(to), Channel(context, server_side=False))
        await peer.shake()
        return peer

    async def shake(self) -> None:
        await self.raw.send(self.channel.take())
        while not self.channel.is_open:
            self.channel.feed(await self._data())
            await self.raw.send(self.channel.take())

    async def send(self, *frames: bytes) -> None:
        await self.raw.send(b"".join(self.channel.seal(frames)))

    async def receive(self) -> wire.Frame:
        while not self._frames:
            self._frames += self._reader.feed(self.channel.feed(await self._data()))
        return self._frames.pop(0)

    async def _data(self) -> bytes:
        data = await asyncio.get_running_loop().sock_recv(self.raw.sock, 1 << 16)
        if not data:
            raise ConnectionError("closed")
        return data

    async def closed(self) -> None:
        """Returns once the other side has closed, with an alert or without."""
        try:
            while True:
                await self.receive()
        except (ConnectionError, wire.FrameError):
            self.raw.close()
