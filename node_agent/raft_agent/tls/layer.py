"""TLS between a TCP connection and whoever speaks frames on it, in asyncio's terms.

`Layer` is the protocol of the TCP connection. Whoever speaks frames has a `SealedTransport`: writes
whole frames to it, and is given those that were sealed, as on a connection without TLS.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from raft_agent import wire
from raft_agent.tls.channel import MAX_HANDSHAKE_BYTES, Channel, check_start
from raft_agent.tls.errors import CertificateRefused
from raft_agent.tls.handshakes import Handshakes
from raft_agent.wire import FrameError

if TYPE_CHECKING:
    from raft_agent.tls.credentials import PeerCertificate

logger = logging.getLogger("raft.tls")

# Handshake frames that wait for their turn, with their headers.
_MAX_WAITING_BYTES = 2 * MAX_HANDSHAKE_BYTES

_NOBODY = asyncio.Protocol()

Check = Callable[[bytes], "PeerCertificate"]
Count = Callable[[int, int], None]


def _uncounted(received: int, sent: int) -> None:
    pass


class Layer(asyncio.Protocol):
    """Drives a `Channel` over the TCP connection that it is given to as protocol.

    `protocol` is told at once of a connection, and writes to it; the frames go out once the channel
    is open and `check` has passed. Otherwise the connection is closed, and
    `protocol.connection_lost` gets the FrameError that says why.
    """

    def __init__(
        self,
        channel: Channel,
        protocol: asyncio.Protocol,
        check: Check,
        *,
        handshakes: Handshakes | None = None,
        among: set[Layer] | None = None,
        count: Count = _uncounted,
    ) -> None:
        """`check`: whose certificate (DER) that is; raises CertificateRefused when it is not
        welcome, as `Credentials.check` does. `handshakes`: of connections that were accepted;
        without it each step is made at once. `among`: where it stands while it is connected.
        `count` is told how many bytes were received and sent that `protocol` does not see.
        """
        self.channel = channel
        self.protocol = protocol
        self.peer: PeerCertificate | None = None
        """Who is on the other side, once the channel is open."""
        self.tcp: asyncio.Transport
        self._check = check
        self._handshakes = handshakes
        self._count = count
        self._among = set() if among is None else among
        self._is_waiting = False
        self._has_begun = False
        self._is_answered = False  # a frame has come, so the other side accepts us
        self._is_closed_by_us = False
        self._received: list[bytes] = []  # not fed yet: it waits for its turn
        self._received_bytes = 0
        self._unsent: list[bytes] = []  # frames, until the channel is open
        self._error: FrameError | None = None

    @property
    def unsent_bytes(self) -> int:
        """What waits for the channel to be open."""
        return sum(map(len, self._unsent))

    def send(self, data: list[bytes]) -> None:
        """Whole frames, each in one piece or in several, are sealed and written with one call.
        They are dropped once the connection has failed or is closed.
        """
        if self._error is not None or self.tcp.is_closing():
            return
        if self.channel.is_open:
            pieces = self.channel.seal(data)
            self.tcp.writelines(pieces)
            self._count(0, sum(map(len, pieces)) - sum(map(len, data)))
            self._look_for_wear()
        else:
            self._unsent += data

    # --- asyncio.Protocol -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio's by their methods, not by their class.
        self.tcp = cast("asyncio.Transport", transport)
        self._among.add(self)
        self.protocol.connection_made(SealedTransport(self))
        self._write_handshake()

    def data_received(self, data: bytes) -> None:
        if self._error is not None:
            return
        if self._handshakes is None or (self.channel.is_open and not self._is_waiting):
            self._feed(data)
            return
        if not self._has_begun:
            try:
                check_start(data)
            except FrameError as error:
                self.fail(error)
                return
        self._received.append(data)
        self._received_bytes += len(data)
        if self._received_bytes > _MAX_WAITING_BYTES:
            self.fail(FrameError("length", "a TLS handshake that is far too long"))
        elif not self._is_waiting:
            self._is_waiting = True
            host = (self.tcp.get_extra_info("peername") or ("",))[0]
            self._handshakes.add(host, self._step, is_first=not self._has_begun)
            self._has_begun = True

    def eof_received(self) -> bool | None:
        return self.protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._among.discard(self)
        self._received.clear()
        self._unsent.clear()
        if self._error is None and exc is None:
            self._error = self._why_ended()
        self.protocol.connection_lost(self._error or exc)
        # It knows this layer by way of its transport, and rings are not collected in an agent.
        self.protocol = _NOBODY
        self._count = _uncounted

    def pause_writing(self) -> None:
        self.protocol.pause_writing()

    def resume_writing(self) -> None:
        self.protocol.resume_writing()

    def _why_ended(self) -> FrameError | None:
        """What the end of the stream means, where it is no end as any other."""
        if self._is_closed_by_us:
            return None
        if self.channel.pending_bytes:
            return FrameError("truncated", "the stream ended within a frame")
        if self._handshakes is None and not self._is_answered:
            return FrameError(
                "tls_refused",
                "it closed the connection in the TLS handshake, and its log says why; are [tls] "
                "and authorities the same at both ends?",
            )
        return None

    # --- the channel ------------------------------------------------------------------------------

    def _step(self) -> None:
        self._is_waiting = False
        data = b"".join(self._received)
        self._received.clear()
        self._received_bytes = 0
        if self._error is None and not self.tcp.is_closing():
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        channel = self.channel
        was_open = channel.is_open
        try:
            frames = channel.feed(data)
            if not was_open:
                self._write_handshake()
                if channel.is_open:
                    self._opened()
        except FrameError as error:
            self.fail(error)
            return
        self._count(len(data) - len(frames), 0)
        if frames:
            self._is_answered = True
            self.protocol.data_received(frames)
            self._look_for_wear()
        if channel.has_ended and not self.tcp.is_closing() and not self.protocol.eof_received():
            self.close()

    def _opened(self) -> None:
        try:
            self.peer = self._check(self.channel.peer_certificate)
        except CertificateRefused as refused:
            raise FrameError(f"tls_{refused.reason}", refused.text) from None
        unsent, self._unsent = self._unsent, []
        if unsent:
            self.send(unsent)

    def _write_handshake(self) -> None:
        data = self.channel.take()
        if data:
            self.tcp.write(data)
            self._count(0, len(data))

    def _look_for_wear(self) -> None:
        if self.channel.is_worn and not self._is_closed_by_us:
            logger.info("closed a connection whose TLS keys have protected enough")
            self.close()

    def fail(self, error: FrameError) -> None:
        """Close the connection because of `error`, which `protocol` is told at its end."""
        if self._error is not None or self.tcp.is_closing():
            return
        self._error = error
        # Their frames know this layer, which would be a ring.
        error.__traceback__ = error.__context__ = None
        self._received.clear()
        # An alert tells the other side why; but nobody waits for one who does not read.
        is_idle = self.tcp.get_write_buffer_size() == 0
        self._write_handshake()
        if error.reason == "tls_plain" and self._handshakes is not None:
            # Whoever speaks without TLS understands that much, and can say it.
            self.tcp.write(wire.bare_header(wire.FrameType.TLS_HANDSHAKE, 0))
        if is_idle:
            self.close()
        else:
            self.abort()

    def close(self) -> None:
        """Close after what was written has gone out."""
        self._is_closed_by_us = True
        self.tcp.close()

    def abort(self) -> None:
        """Close at once."""
        self._is_closed_by_us = True
        self.tcp.abort()


class SealedTransport(asyncio.Transport):
    """A connection that carries frames under TLS: `write` and `writelines` take whole frames,
    in one piece or in several.

    Beside what the TCP connection has, `get_extra_info` knows "peer_certificate": the
    PeerCertificate of the other side, None until the first frame has come.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self._layer = layer

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._layer.send([bytes(data)])

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self._layer.send([bytes(data) for data in list_of_data])

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "peer_certificate":
            return self._layer.peer
        return self._layer.tcp.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Whoever speaks frames from now on."""
        self._layer.protocol = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._layer.protocol

    def is_closing(self) -> bool:
        return self._layer.tcp.is_closing()

    def close(self) -> None:
        self._layer.close()

    def abort(self) -> None:
        self._layer.abort()

    def pause_reading(self) -> None:
        self._layer.tcp.pause_reading()

    def resume_reading(self) -> None:
        self._layer.tcp.resume_reading()

    def is_reading(self) -> bool:
        return self._layer.tcp.is_reading()

    def get_write_buffer_size(self) -> int:
        return self._layer.tcp.get_write_buffer_size() + self._layer.unsent_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._layer.tcp.set_write_buffer_limits(high, low)
