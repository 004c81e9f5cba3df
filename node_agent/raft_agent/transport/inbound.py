"""A connection that a peer dialled: its calls come in, our replies go back.

A peer has two of them at most, the main one and one for bulk. Somebody who only asks who is here
is answered and has none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from raft_agent import wire
from raft_agent.transport.codec import BULK_FRAMES, CALL_FRAMES
from raft_agent.transport.connection import Connection, Local, PeerStats
from raft_agent.transport.handshake import (
    Hello,
    Purpose,
    Refused,
    check_generation,
    check_hello,
    decode_hello,
    encode_hello,
)
from raft_agent.transport.strangers import Strangers
from raft_agent.wire import FrameError, FrameType

if TYPE_CHECKING:
    from raft_agent.tls.credentials import PeerCertificate

logger = logging.getLogger("raft.transport")

_VERSION_ASK = int(FrameType.VERSION_ASK)

_FRAMES: dict[str, frozenset[int]] = {
    Purpose.MAIN: (CALL_FRAMES - BULK_FRAMES) | {FrameType.FORWARD_REQUEST, FrameType.VERSION_ASK},
    Purpose.BULK: CALL_FRAMES & BULK_FRAMES,
}


class InboundOwner(Protocol):
    """Who keeps the connections that were accepted."""

    strangers: Strangers[InboundConnection]
    """The inbound connections that have not finished their handshake."""

    serials: Iterator[int]
    """Rising numbers for connections in the order in which they were accepted."""

    def inbound_stands(self, connection: InboundConnection, hello: Hello) -> PeerStats:
        """Raises Refused when a newer connection of the same member and purpose stands, or when
        the configuration contradicts what it says.
        """

    def inbound_lost(self, connection: InboundConnection) -> None: ...


class InboundConnection(Connection):
    def __init__(self, local: Local, owner: InboundOwner) -> None:
        super().__init__(local, FrameType.HELLO)
        self.serial = 0  # in the order in which connections were accepted
        self.purpose = ""  # one of Purpose, once the handshake is done
        self._owner = owner
        self._is_stranger = True

    def frame_received(self, frame: wire.Frame) -> None:
        if self._is_stranger:
            self._hello_received(frame)
        elif not self.is_from_peer(frame):
            return
        elif frame.type == FrameType.FORWARD_REQUEST:
            self.local.handlers.on_forward(
                self.member_id, frame.body, self._forward_reply(frame.request_id)
            )
        elif frame.type == _VERSION_ASK:
            if version := self.version_in(frame):
                self.local.handlers.on_version_ask(self.member_id, version)
        else:
            self.message_received(frame)

    def data_received(self, data: bytes) -> None:
        if self._is_stranger and not self._reader.pending_bytes:
            certificate = self.certificate
            # The first frame's header comes in one piece then.
            if certificate is not None and wire.type_of(data) == FrameType.CLIENT_REQUEST:
                self._hand_over(certificate, data)
                return
        super().data_received(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.serial = next(self._owner.serials)
        too_many = self._owner.strangers.come(self, self.reject_host())
        if too_many is not None:
            oldest, why = too_many
            oldest.reject("crowded", why)

    def _hand_over(self, certificate: PeerCertificate, data: bytes) -> None:
        """It is no peer but a client: somebody else serves it from here on."""
        transport = self.leave()
        self._no_stranger()
        client = self.local.handlers.on_client(certificate)
        transport.set_protocol(client)
        client.connection_made(transport)
        client.data_received(data)

    def lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._no_stranger()
        self._owner.inbound_lost(self)

    def _no_stranger(self) -> None:
        if self._is_stranger:
            self._is_stranger = False
            self._owner.strangers.leave(self, self.reject_host())

    def _hello_received(self, frame: wire.Frame) -> None:
        own = self.local.hello()
        try:
            hello = decode_hello(frame)
            self.check_certificate(hello)
            if hello.purpose == Purpose.PROBE:
                self._asked_who_is_here(hello)
                return
            check_hello(own, hello)
            check_generation(self.local.generation, own, hello)
            if hello.purpose not in _FRAMES:
                raise Refused(
                    "purpose",
                    f"{hello.name!r} wants a connection for {hello.purpose!r}, which "
                    f"{own.name!r} does not know",
                )
            self.local.handlers.admit(hello)
            self.purpose = hello.purpose
            stats = self._owner.inbound_stands(self, hello)
        except FrameError as error:
            self.reject(error.reason, str(error))
        except Refused as refused:
            answer = self.local.hello(str(refused), fate=refused.fate)
            self.send(encode_hello(FrameType.HELLO_REPLY, answer), bulk=False)
            self.refuse(refused.reason, str(refused))
        else:
            self._no_stranger()
            self.handshake_done(hello, stats, _FRAMES[hello.purpose])
            self.send(encode_hello(FrameType.HELLO_REPLY, own), bulk=False)

    def _asked_who_is_here(self, hello: Hello) -> None:
        """The asker gets an answer whatever it is, and draws its own conclusions."""
        logger.debug("%r at %s asks who is here", hello.name, self.peer_address)
        with contextlib.suppress(Refused):
            self.local.handlers.admit(hello)
        standing = self.local.handlers.standing
        answer = self.local.hello(standing=standing() if standing else None)
        self.send(encode_hello(FrameType.HELLO_REPLY, answer), bulk=False)
        self.close()

    def _forward_reply(self, request_id: int) -> Callable[[bytes], None]:
        def reply(body: bytes) -> None:
            frame = wire.encode(
                FrameType.FORWARD_REPLY,
                body,
                sender=self.local.member_id,
                request_id=request_id,
                count=1,
            )
            # The peer counts on a reply or the end of the connection.
            if not self.send(frame, bulk=False):
                self.abort()

        return reply
