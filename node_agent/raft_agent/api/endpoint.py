"""An agent on another machine: reached over TCP and TLS, at the address where members reach it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from typing import TypeVar

from raft_agent import platform, wire
from raft_agent.api import protocol
from raft_agent.tls.channel import Channel
from raft_agent.tls.credentials import Credentials, PeerCertificate
from raft_agent.tls.errors import CertificateRefused
from raft_agent.tls.files import TlsFiles
from raft_agent.tls.identity import Kind
from raft_agent.tls.layer import Layer

_READ_BYTES = 1 << 18
# Whoever only watches sends nothing, and would wait for ever for an agent whose machine has lost
# its power or its network.
_SILENCE_S = 20.0
_CLOSED = (
    "it closed the connection in the TLS handshake, and its log says why; does it speak TLS, and "
    "does it know the authority of your certificate?"
)
_PROTOCOL = TypeVar("_PROTOCOL", bound=asyncio.Protocol)


# Changes nothing, and every role may ask it. Who shows a certificate under TLS 1.3 may hear of its
# refusal with the first answer only (RFC 8446, appendix E.1): no write is to be in doubt then.
GREETING = protocol.Cancel(0, 0)


class Endpoint:
    """`address` is "host:port"; the host must stand in the node's certificate, or `server_name`
    instead of it (a node's certificate has the node's name, too). `files` are the client's own.

    Raises TlsError when the files can't be used, ValueError when it is no address.
    """

    def __init__(self, address: str, files: TlsFiles, *, server_name: str = "") -> None:
        host, separator, port = address.rpartition(":")
        self.host = host.removeprefix("[").removesuffix("]")
        if not separator or not self.host or not port.isdecimal() or int(port) > 0xFFFF:
            raise ValueError(f'{address!r} is no address of an agent: write "HOST:PORT"')
        self.port = int(port)
        self._address = address
        self._server_name = server_name or self.host
        self._credentials = Credentials(files, Kind.CLIENT)

    def __str__(self) -> str:
        return self._address

    def dial(self, timeout_s: float) -> SealedSocket:
        """A connection that blocks, its TLS handshake done. Raises OSError."""
        deadline = time.monotonic() + timeout_s
        connection = socket.create_connection((self.host, self.port), timeout_s)
        try:
            platform.notice_dead_peer(connection, _SILENCE_S)
            sealed = SealedSocket(connection, self._channel(), self._check)
            sealed.shake_hands(deadline)
        except BaseException:
            connection.close()
            raise
        return sealed

    async def connect(self, make: Callable[[], _PROTOCOL]) -> _PROTOCOL:
        """A connection for the protocol that `make` gives, its TLS handshake done; the protocol may
        write as soon as it is told of the connection. Raises OSError.
        """
        protocol = make()
        loop = asyncio.get_running_loop()
        opening = _Opening(self._channel(), protocol, self._check, loop)
        await loop.create_connection(lambda: opening, self.host, self.port)
        try:
            await opening.opened
        except asyncio.CancelledError:
            opening.tcp.abort()
            raise
        return protocol

    def _channel(self) -> Channel:
        # Who stays for long gets new certificates meanwhile.
        self._credentials.refresh()
        return Channel(
            self._credentials.host_context(),
            server_side=False,
            server_hostname=self._server_name,
        )

    def _check(self, der: bytes) -> PeerCertificate:
        return self._credentials.check(der, kind=Kind.NODE)


class _Opening(Layer):
    """`opened` is done when the handshake is, or raises RefusedError."""

    def __init__(
        self,
        channel: Channel,
        protocol: asyncio.Protocol,
        check: Callable[[bytes], PeerCertificate],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(channel, protocol, self._checked)
        self.opened: asyncio.Future[None] = loop.create_future()
        self._check_certificate = check

    def _checked(self, der: bytes) -> PeerCertificate:
        found = self._check_certificate(der)
        self.opened.set_result(None)
        return found

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        platform.notice_dead_peer(transport.get_extra_info("socket"), _SILENCE_S)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if not self.opened.done():
            self.opened.set_exception(RefusedError(str(self._error or exc or _CLOSED)))


class RefusedError(ConnectionError):
    """One of the two sides does not accept the other's certificate: nothing was served."""


class SealedSocket:
    """What `SyncClient` needs of a socket, with whole frames under TLS."""

    def __init__(
        self, connection: socket.socket, channel: Channel, check: Callable[[bytes], PeerCertificate]
    ) -> None:
        self._socket = connection
        self._channel = channel
        self._check = check
        self._is_answered = False  # a frame has come, so the agent accepts our certificate

    def shake_hands(self, deadline: float) -> None:
        """Until TLS stands; `deadline` is of time.monotonic(). Raises OSError."""
        channel = self._channel
        while not channel.is_open:
            self._socket.sendall(channel.take())
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            if self._receive() is None:
                raise RefusedError(_CLOSED)
        self._socket.sendall(channel.take())
        try:
            self._check(channel.peer_certificate)
        except CertificateRefused as refused:
            raise RefusedError(refused.text) from None

    def sendall(self, frame: bytes) -> None:
        """One whole frame. Raises OSError."""
        self._socket.sendall(b"".join(self._channel.seal([frame])))

    def recv(self, _size: int) -> bytes:
        """Some bytes of frames; empty at the end. Raises OSError."""
        while True:
            data = self._receive()
            if data is None:
                if not self._is_answered:
                    raise RefusedError(_CLOSED)
                return b""
            if data:
                self._is_answered = True
                return data

    def _receive(self) -> bytes | None:
        """What was in some bytes that came, which may be nothing yet; None at the end."""
        data = self._socket.recv(_READ_BYTES)
        if not data:
            return None
        try:
            return self._channel.feed(data)
        except wire.FrameError as error:
            with contextlib.suppress(OSError):
                self._socket.sendall(self._channel.take())
            raise RefusedError(str(error)) from error

    def settimeout(self, timeout_s: float | None) -> None:
        self._socket.settimeout(timeout_s)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()
