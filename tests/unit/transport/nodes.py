"""Real transports on the loopback interface, and raw peers that speak the protocol byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import uvloop

from raft_agent import wire
from raft_agent.consensus import types
from raft_agent.tls.credentials import Credentials, PeerCertificate
from raft_agent.tls.identity import Identity
from raft_agent.tls.security import Security
from raft_agent.transport.handshake import Hello, Purpose, decode_hello, encode_hello
from raft_agent.transport.transport import PeerTarget, Transport, TransportHandlers
from raft_agent.wire import FrameType

CLUSTER = "0123456789abcdef0123456789abcdef"
OTHER_CLUSTER = "fedcba9876543210fedcba9876543210"
HANG_S = 30  # a test that waits this long for something waits in vain


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test's coroutine; what the loop's exception handler was told fails it."""
    faults: list[dict[str, Any]] = []

    async def guarded() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        async with asyncio.timeout(HANG_S):
            await test()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(guarded())
    assert faults == []


class Node:
    """A transport that writes down what it tells."""

    def __init__(
        self,
        member_id: int,
        *,
        cluster_id: str = CLUSTER,
        name: str = "",
        port: int = 0,
        election_timeout_max_ms: int = 300,
        credentials: Credentials | None = None,
        clear_headers: bool = True,
    ) -> None:
        self.member_id = member_id
        self.name = name or f"node-{member_id:02}"
        self.told: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
        self.answer_forward: Callable[[bytes, Callable[[bytes], None]], None] | None = None
        self.transport = Transport(
            member_id=member_id,
            name=self.name,
            cluster_id=cluster_id,
            listen_addr=f"127.0.0.1:{port}",
            election_timeout_max_ms=election_timeout_max_ms,
            handlers=TransportHandlers(
                on_message=lambda sender, message: self._tell("message", sender, message),
                on_peer_up=lambda peer, name: self._tell("up", peer, name),
                on_peer_down=lambda peer: self._tell("down", peer),
                on_forward=self._forwarded,
                on_client=self._client,
                on_version_ask=lambda peer, version: self._tell("asked", peer, version),
                on_version_promise=lambda peer, version: self._tell("promised", peer, version),
                on_outdated=lambda text: self._tell("outdated", text),
            ),
            security=credentials and Security(credentials, clear_headers=clear_headers),
            seed=member_id,
        )

    def _tell(self, *what: Any) -> None:
        self.told.put_nowait(what)

    def _forwarded(self, sender: int, body: bytes, reply: Callable[[bytes], None]) -> None:
        self._tell("forward", sender, body)
        if self.answer_forward is not None:
            self.answer_forward(body, reply)

    def _client(self, certificate: PeerCertificate) -> asyncio.Protocol:
        return ToldClient(self, certificate.identity)

    async def until(self, *what: Any) -> tuple[Any, ...]:
        """The next thing told that starts with `what`; what comes before it is dropped."""
        while True:
            told = await self.told.get()
            if told[: len(what)] == what:
                return told

    async def until_refused(self, reason: str) -> None:
        """Refusals are counted, not told."""
        while not self.transport.reject_counts[reason]:
            await asyncio.sleep(0.005)

    @property
    def port(self) -> int:
        return self.transport.listen_port

    def target(self) -> PeerTarget:
        return PeerTarget(self.name, f"127.0.0.1:{self.port}", self.member_id)

    def hello(self, **changes: Any) -> Hello:
        facts = {
            "oldest": 1,
            "newest": 1,
            "cluster_id": CLUSTER,
            "member_id": self.member_id,
            "name": self.name,
            "address": "127.0.0.1:1",
        }
        return Hello(**(facts | changes))


class ToldClient(asyncio.Protocol):
    """A remote client's connection: its node writes down what comes, and a frame that comes in one
    piece goes back.
    """

    def __init__(self, node: Node, identity: Identity) -> None:
        self._node = node
        self._identity = identity

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._node.told.put_nowait(("client", self._identity))

    def data_received(self, data: bytes) -> None:
        self._node.told.put_nowait(("request", data))
        if len(data) == wire.HEADER_SIZE + wire.body_length(data):
            self._transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._node.told.put_nowait(("client lost", exc and str(exc)))


@contextlib.asynccontextmanager
async def started(*nodes: Node) -> AsyncIterator[None]:
    """The nodes' transports, started; closed at the end."""
    for node in nodes:
        await node.transport.start()
    try:
        yield
    finally:
        for node in nodes:
            await node.transport.close()


async def connect_all(*nodes: Node) -> None:
    """Every node dials every other; returns once all connections stand."""
    for node in nodes:
        node.transport.set_peers([other.target() for other in nodes])
    for node in nodes:
        waiting = {other.member_id for other in nodes} - {node.member_id}
        while waiting:
            waiting.remove((await node.until("up"))[1])


class RawPeer:
    """One TCP connection in the test's own hands; reads only when asked."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._reader = wire.FrameReader(frozenset(FrameType))
        self._frames: list[wire.Frame] = []

    @classmethod
    async def dial(cls, node: Node) -> RawPeer:
        sock = socket.socket()
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", node.port))
        return cls(sock)

    @classmethod
    async def dial_as(cls, node: Node, hello: Hello) -> RawPeer:
        """A connection on which the handshake was asked for and answered."""
        peer = await cls.dial(node)
        await peer.send(encode_hello(FrameType.HELLO, hello))
        frame = await peer.receive()
        assert frame is not None
        assert decode_hello(frame).refusal == ""
        return peer

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def receive(self) -> wire.Frame | None:
        """The next frame; None once the other side has closed."""
        while not self._frames:
            try:
                data = await asyncio.get_running_loop().sock_recv(self.sock, 1 << 16)
            except ConnectionError:
                return None
            if not data:
                return None
            self._frames += self._reader.feed(data)
        return self._frames.pop(0)

    async def closed(self) -> None:
        """Returns once the other side has closed; what it sent before is read."""
        while await self.receive() is not None:
            pass

    def close(self) -> None:
        self.sock.close()


class RawListener:
    """A listening socket in the test's own hands."""

    def __init__(self, receive_buffer: int | None = None) -> None:
        self.sock = socket.socket()
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.listen()
        self.sock.setblocking(False)
        self.address = f"127.0.0.1:{self.sock.getsockname()[1]}"

    async def accept(self) -> RawPeer:
        sock, _ = await asyncio.get_running_loop().sock_accept(self.sock)
        return RawPeer(sock)

    async def accept_as(self, hello: Hello, purpose: Purpose = Purpose.MAIN) -> RawPeer:
        """The next connection, its handshake for this purpose answered with `hello`."""
        peer = await self.accept()
        frame = await peer.receive()
        assert frame is not None
        assert frame.type == FrameType.HELLO
        assert decode_hello(frame).purpose == purpose
        await peer.send(encode_hello(FrameType.HELLO_REPLY, hello))
        return peer

    def close(self) -> None:
        self.sock.close()


async def dialled(node: Node, listener: RawListener, peer: Node) -> RawPeer:
    """Have `node` dial `listener`, who answers as `peer`; the connection, once it counts."""
    node.transport.set_peers([PeerTarget(peer.name, listener.address, peer.member_id)])
    connection = await listener.accept_as(peer.hello())
    await node.until("up", peer.member_id)
    return connection


def hello_frame(node: Node, **changes: Any) -> bytes:
    """The HELLO with which `node` would dial."""
    return encode_hello(FrameType.HELLO, node.hello(**changes))


HEARTBEAT = types.Heartbeat(term=3, request_id=1, session=2, commit_index=1)
