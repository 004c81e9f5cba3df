"""TLS 1.3 inside frames: what goes over a connection of members and remote clients, without I/O.

Every frame keeps its header in clear, for the program in the kernel, and its body is TLS records
that carry the real frame, header and all. The sealed header is the one that counts, and the clear
one must not differ from it but in length and checksum; the latter is 0, since TLS has its own. With
`clear_headers=False` the clear header tells nothing but the length. Both forms are understood
whatever is sent. Only what TLS protects is believed, but the program in the kernel reads the clear
headers: none may say what it does not have to.

The handshake and alerts go in frames of type TLS_HANDSHAKE. A sealed frame begins and ends with its
TLS records, so a stream that was cut delivers whole frames and nothing else, and its end says no
more than that of any lost connection: close_notify (RFC 8446 §6.1) is not needed. Where it comes it
is the end of the stream.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable

from raft_agent import wire
from raft_agent.tls import failures
from raft_agent.wire import HEADER_SIZE, MAX_SEALED_BYTES, FrameError, FrameType

# Of the handshake in one direction: some certificates of a few hundred bytes each.
MAX_HANDSHAKE_BYTES = 64 << 10
_HANDSHAKE_FRAME_BYTES = 16 << 10

# AES-GCM keys may protect 2^24.5 full records (RFC 8446 §5.5), and Python's ssl can't renew them:
# a connection over which that much went has to be made anew.
WORN_BYTES = 1 << 38

_RECORD_BYTES = 16 << 10
_HANDSHAKE = int(FrameType.TLS_HANDSHAKE)
_SEALED = int(FrameType.TLS_FRAME)
# Frames of TLS that have no header to repeat.
_BARE = frozenset((_HANDSHAKE, _SEALED))
_LENGTH_AT = 8
_CHECKSUM_AT = 12
_CHECKSUM_END = 16
_NO_CHECKSUM = bytes(4)
# Handshake record, version 3.x (RFC 8446 §5.1); ClientHello (§4) follows its length.
_HANDSHAKE_RECORD = b"\x16\x03"
_CLIENT_HELLO = b"\x01"
_CLIENT_HELLO_AT = 5


class Channel:
    """One end of a connection. Give what comes to `feed`, and send what `take` and `seal` return.

    The dialler begins: send what `take` returns. Once `is_open` is true the other side has shown a
    certificate that the context accepts, `peer_certificate`; whose it is, and whether that is
    enough, is for the caller to judge before it believes a frame.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        clear_headers: bool = True,
        server_hostname: str | None = None,
    ) -> None:
        """`context`: for TLS 1.3 and certificates on both sides. `clear_headers`: whether frames
        that are sent show their headers. `server_hostname`: for a context that checks it.
        """
        self._context = context
        self._is_server = server_side
        self._clear_headers = clear_headers
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        self.is_open = False
        self.peer_certificate = b""
        """In DER, once the channel is open."""
        self.has_ended = False
        """Whether the other side has said that it sends nothing more."""
        self._head = b""  # the clear header of the frame that is coming, or a part of it
        self._missing = 0  # of its body
        self._control = bytearray()  # the body of a handshake frame so far
        self._handshake_bytes = 0
        self._sealed_head = b""  # as much as was decrypted before it was there in full
        self._sealed_missing = -1  # of the sealed frame; -1: its header is not there
        self._used_bytes = 0
        # Whoever has dialled can dial anew, and should be first.
        self._worn_bytes = WORN_BYTES + (WORN_BYTES >> 3 if server_side else 0)
        if not server_side:
            self._begin(server_hostname)

    @property
    def pending_bytes(self) -> int:
        """How much of a frame that is not there in full has come: after the last byte of a stream
        anything but 0 means that it was cut short.
        """
        if len(self._head) < HEADER_SIZE:
            return len(self._head)
        return HEADER_SIZE + wire.body_length(self._head) - self._missing

    @property
    def is_worn(self) -> bool:
        """Whether so much went over it that it should be made anew."""
        return self._used_bytes > self._worn_bytes

    def feed(self, data: bytes) -> bytes:
        """Take in `data`; what was sealed in it, to the end of the last frame or of the last record
        of a longer one.

        Raises FrameError, after which the channel is lost: send what `take` returns, which tells
        the other side why, and close the connection. Its reason begins with "tls_", or is one of
        wire.FrameReader's.
        """
        view = memoryview(data)
        size = len(data)
        offset = 0
        pieces: list[bytes] = []
        while offset < size:
            if len(self._head) < HEADER_SIZE:
                end = offset + HEADER_SIZE - len(self._head)
                self._head += data[offset:end]
                offset = min(end, size)
                self._check_head()
                if len(self._head) < HEADER_SIZE:
                    break
                self._missing = wire.body_length(self._head)
            part = view[offset : offset + self._missing]
            offset += len(part)
            self._missing -= len(part)
            if not self.is_open:
                self._shake_hands(part)
            else:
                self._incoming.write(part)
                self._unseal(pieces)
            if not self._missing:
                self._frame_ends()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def seal(self, data: Iterable[bytes]) -> list[bytes]:
        """Whole frames, as pieces to send one behind the other, once the channel is open. One item
        of `data` may hold several frames, and a frame may go on in the next one behind its header.
        """
        if not self.is_open:
            raise RuntimeError("nothing can be sealed before the handshake is done")
        pieces: list[bytes] = []
        head = b""
        missing = 0  # of the frame whose head that is
        for item in data:
            size = len(item)
            if not missing and size == HEADER_SIZE + wire.body_length(item):
                # The usual case: one frame and nothing else.
                self._write(item)
                self._frame(item, pieces)
                continue
            view = memoryview(item)
            at = 0
            while at < size:
                if not missing:
                    head = item[at : at + HEADER_SIZE]
                    missing = HEADER_SIZE + wire.body_length(head)
                part = view[at : at + missing]
                self._write(part)
                at += len(part)
                missing -= len(part)
                if not missing:
                    self._frame(head, pieces)
        if missing:
            raise ValueError(f"a frame to be sealed lacks {missing} bytes")
        return pieces

    def take(self) -> bytes:
        """What the handshake wants to have sent, as frames; after an error the alert."""
        data = self._outgoing.read()
        frames = []
        for start in range(0, len(data), _HANDSHAKE_FRAME_BYTES):
            body = data[start : start + _HANDSHAKE_FRAME_BYTES]
            frames += [wire.bare_header(_HANDSHAKE, len(body)), body]
        return b"".join(frames)

    # --- out --------------------------------------------------------------------------------------

    def _write(self, part: bytes | memoryview) -> None:
        tls = self._tls
        assert tls is not None  # noqa: S101
        done = tls.write(part)
        while done < len(part):
            done += tls.write(part[done:])

    def _frame(self, head: bytes, pieces: list[bytes]) -> None:
        """Put a clear header in front of the records that have been written since the last one."""
        records = self._outgoing.read()
        self._used_bytes += len(records)
        pieces.append(
            _clear_head(head, len(records))
            if self._clear_headers
            else wire.bare_header(_SEALED, len(records))
        )
        pieces.append(records)

    # --- in ---------------------------------------------------------------------------------------

    def _check_head(self) -> None:
        """Raises FrameError when the clear header can't be that of a frame that is welcome now."""
        head = self._head
        wire.check_form(head)
        if len(head) < HEADER_SIZE:
            return
        length = wire.body_length(head)
        if self.is_open:
            if wire.type_of(head) in _BARE:
                _check_bare(head)
            if length > MAX_SEALED_BYTES:
                raise FrameError(
                    "length", f"sealed frame of {length} bytes is over {MAX_SEALED_BYTES}"
                )
            return
        _check_handshake_head(head)
        self._handshake_bytes += length
        if self._handshake_bytes > MAX_HANDSHAKE_BYTES:
            raise _too_long()

    def _shake_hands(self, part: memoryview) -> None:
        self._control += part
        if self._missing:
            return
        body = bytes(self._control)
        self._control.clear()
        if self._tls is None:
            # Cheap, before anything is made or computed for whoever sent it.
            _check_client_hello(body)
            self._begin(None)
        self._incoming.write(body)
        self._advance()

    def _begin(self, server_hostname: str | None) -> None:
        self._tls = self._context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=self._is_server,
            server_hostname=server_hostname,
        )
        if not self._is_server:
            self._advance()

    def _advance(self) -> None:
        """One step of the handshake. Raises FrameError."""
        tls = self._tls
        assert tls is not None  # noqa: S101
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError as error:
            raise failures.of_handshake(error) from None
        certificate = tls.getpeercert(binary_form=True)
        if not certificate:
            raise FrameError("tls_no_certificate", "it shows no certificate")
        self.peer_certificate = certificate
        self.is_open = True

    def _unseal(self, pieces: list[bytes]) -> None:
        """Decrypt as many records as are there."""
        tls = self._tls
        assert tls is not None  # noqa: S101
        incoming = self._incoming
        wanted = min(wire.body_length(self._head), _RECORD_BYTES)
        # A record whose rest is still to come is inside of `tls` already.
        while incoming.pending or tls.pending():
            try:
                piece = tls.read(wanted or 1)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLError as error:
                raise failures.of_records(error) from None
            if not piece:
                self.has_ended = True
                return
            self._unsealed(piece, pieces)

    def _unsealed(self, piece: bytes, pieces: list[bytes]) -> None:
        if wire.type_of(self._head) == _HANDSHAKE:
            raise FrameError("tls_header", "a frame of the TLS handshake carries data")
        if self._sealed_missing < 0:
            if self._sealed_head:
                piece = self._sealed_head + piece
            if len(piece) < HEADER_SIZE:
                self._sealed_head = piece
                return
            self._sealed_head = b""
            if wire.type_of(self._head) != _SEALED:
                _compare(self._head, piece[:HEADER_SIZE])
            self._sealed_missing = HEADER_SIZE + wire.body_length(piece)
        self._sealed_missing -= len(piece)
        if self._sealed_missing < 0:
            raise FrameError("tls_header", "there is more in a sealed frame than its header says")
        pieces.append(piece)

    def _frame_ends(self) -> None:
        head, self._head = self._head, b""
        if wire.type_of(head) == _HANDSHAKE:
            return
        self._used_bytes += wire.body_length(head)
        if self._sealed_missing:
            raise FrameError("tls_header", "there is less in a sealed frame than its header says")
        self._sealed_missing = -1


def check_start(data: bytes) -> None:
    """Whether a TLS handshake can begin like that, as far as it is there, at next to no cost.

    Raises FrameError.
    """
    head = data[:HEADER_SIZE]
    wire.check_form(head)
    if len(head) == HEADER_SIZE:
        _check_handshake_head(head)
        if len(data) > HEADER_SIZE + _CLIENT_HELLO_AT:
            _check_client_hello(data[HEADER_SIZE:])


def _check_handshake_head(head: bytes) -> None:
    kind = wire.type_of(head)
    if kind != _HANDSHAKE:
        raise FrameError(
            "tls_plain",
            f"a plain frame of type {kind} where TLS is spoken: set [tls] at both ends",
        )
    _check_bare(head)
    if wire.body_length(head) > _HANDSHAKE_FRAME_BYTES:
        raise _too_long()


def _check_bare(head: bytes) -> None:
    """Whether the header of a frame of TLS tells nothing but its type and its length."""
    kind = wire.type_of(head)
    if head != wire.bare_header(kind, wire.body_length(head)):
        raise FrameError(
            "tls_header", f"the clear header of a frame of type {kind} says more than its length"
        )


def _check_client_hello(body: bytes) -> None:
    kind = body[_CLIENT_HELLO_AT : _CLIENT_HELLO_AT + 1]
    if not body.startswith(_HANDSHAKE_RECORD) or kind != _CLIENT_HELLO:
        raise FrameError("tls_records", "a TLS handshake that begins with no ClientHello")


def _too_long() -> FrameError:
    return FrameError("length", "a TLS handshake that is far too long")


def _clear_head(frame: bytes, length: int) -> bytes:
    return b"".join(
        (
            frame[:_LENGTH_AT],
            length.to_bytes(4, "little"),
            _NO_CHECKSUM,
            frame[_CHECKSUM_END:HEADER_SIZE],
        )
    )


def _compare(clear: bytes, sealed: bytes) -> None:
    """Raises FrameError when the headers differ in anything but length and checksum, or when the
    clear one has a checksum."""
    if (
        clear[:_LENGTH_AT] == sealed[:_LENGTH_AT]
        and clear[_CHECKSUM_END:] == sealed[_CHECKSUM_END:]
        and clear[_CHECKSUM_AT:_CHECKSUM_END] == _NO_CHECKSUM
    ):
        return
    names = (
        "magic",
        "version",
        "type",
        "flags",
        "",
        "",
        "sender",
        "term",
        "request id",
        "count",
        "reserved",
    )
    fields = zip(names, wire.HEADER.unpack(clear), wire.HEADER.unpack(sealed), strict=False)
    for name, shown, meant in fields:
        if name and shown != meant:
            raise FrameError(
                "tls_header",
                f"the clear header of a frame says {name} {shown:#x}, the sealed one {meant:#x}: "
                "somebody changes frames on their way",
            )
    raise FrameError("tls_header", "the clear header of a sealed frame has a checksum")
