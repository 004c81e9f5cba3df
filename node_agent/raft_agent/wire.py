"""Frames: what every connection of the agent carries, over TCP and over the Unix socket.

A frame is a fixed little-endian header of 48 bytes and a body. `bpf/raft_wire.h` is the layout's
source, so that the kernel reads the same fields; a test holds this module against it.
"""

from __future__ import annotations

import enum
import struct

import google_crc32c
import msgspec

MAGIC = 0x54464152  # "RAFT" on the wire
VERSION = 1
HEADER = struct.Struct("<IBBHIIQQQII")
HEADER_SIZE = HEADER.size
_pack = HEADER.pack
# Its length and checksum, and what stands before and behind them.
_pack_parts = struct.Struct("<8sII32s").pack
_unpack_parts = struct.Struct("<8sII28sI").unpack_from
MAX_BODY_BYTES = 32 << 20

# With TLS the body is records that carry the whole frame: each holds 16 KiB and takes 22 bytes
# beside them (RFC 8446 §5.2), which is 44 KiB for the largest one.
MAX_SEALED_BYTES = MAX_BODY_BYTES + (64 << 10)

# AppendEntries bodies start with this many bytes of fields; the batches behind them carry their own
# CRC32C each, so the frame's checksum stops here instead of reading every byte once per follower.
APPEND_FIELDS_SIZE = 32

# Up to here a copy of a frame's body costs nothing to speak of.
_SMALL_BYTES = 2048

# Of a frame that is not there in full: pieces of less than that, all in all, are joined.
_PIECE_BYTES = 4096
_SLACK_BYTES = 256 << 10

_TYPE_OFFSET = 5
_LENGTH_OFFSET = 8
_CHECKSUM_OFFSET = 12
_CHECKSUM_END = 16
_NO_CHECKSUM = bytes(_CHECKSUM_END - _CHECKSUM_OFFSET)
_MAGIC_BYTES = MAGIC.to_bytes(4, "little")
# Their positions in the unpacked header.
_TYPE, _LENGTH, _CHECKSUM = 2, 4, 5


class FrameType(enum.IntEnum):
    """What the body is. Numbers are part of the protocol and are never used twice."""

    HELLO = 1
    HELLO_REPLY = 2
    PRE_VOTE = 3
    PRE_VOTE_REPLY = 4
    REQUEST_VOTE = 5
    VOTE_REPLY = 6
    APPEND_ENTRIES = 7
    APPEND_REPLY = 8
    HEARTBEAT = 9
    HEARTBEAT_REPLY = 10
    TIMEOUT_NOW = 11
    READ_INDEX = 12
    READ_INDEX_REPLY = 13
    BOOTSTRAP_ASK = 14
    BOOTSTRAP_ANSWER = 15
    BOOTSTRAP_INSTALL = 16
    SNAPSHOT_CHUNK = 17
    SNAPSHOT_REPLY = 18
    ANNOUNCE = 19
    REMOVED = 20
    AUDIT_REPORT = 21
    VERSION_ASK = 27
    VERSION_PROMISE = 28
    CLIENT_REQUEST = 32
    CLIENT_REPLY = 33
    CLIENT_PUSH = 34
    FORWARD_REQUEST = 35
    FORWARD_REPLY = 36
    TLS_HANDSHAKE = 37
    TLS_FRAME = 38


# Of an enumeration's member as such each use costs more than the rest of its line.
_APPEND_ENTRIES = int(FrameType.APPEND_ENTRIES)


class Flag(enum.IntFlag):
    """`JSON`: a client frame whose body is JSON instead of MessagePack."""

    JSON = 1


class FrameError(ValueError):
    """The bytes are no frame of this protocol; the connection can't go on. `reason` is a short
    stable word for counters: "magic", "version", "type", "length", "checksum" from the reader;
    "body", "sender" and others from those who look inside.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One frame. `count` is the number of entries or requests within; `body` is a copy of its own,
    so it outlives the reader's buffer.
    """

    type: int
    flags: int
    sender: int
    term: int
    request_id: int
    count: int
    body: bytes


def encode(
    frame_type: int,
    body: bytes,
    *,
    flags: int = 0,
    sender: int = 0,
    term: int = 0,
    request_id: int = 0,
    count: int = 0,
    data: bytes = b"",
    batches_bytes: int = 0,
) -> bytes:
    """One frame as bytes. `data` follows `body` as if it were its end, without being copied twice.
    `batches_bytes`: the caller sends so many bytes of batches behind it (AppendEntries only), which
    have CRCs of their own.

    Raises ValueError when the body is larger than MAX_BODY_BYTES.
    """
    if len(body) <= _SMALL_BYTES and not data and not batches_bytes:
        # Most frames by far. Copying a few bytes twice costs less than not to.
        size = len(body)
        head = _pack(MAGIC, VERSION, frame_type, flags, size, 0, sender, term, request_id, count, 0)
        crc = google_crc32c.value(head + body)
        head = _pack(
            MAGIC, VERSION, frame_type, flags, size, crc, sender, term, request_id, count, 0
        )
        return head + body
    length = len(body) + len(data) + batches_bytes
    if length > MAX_BODY_BYTES:
        raise ValueError(f"frame body of {length} bytes is over {MAX_BODY_BYTES}")
    head = HEADER.pack(
        MAGIC, VERSION, frame_type, flags, length, 0, sender, term, request_id, count, 0
    )
    crc = google_crc32c.extend(google_crc32c.value(head), body)
    if data:
        crc = google_crc32c.extend(crc, data)
    checksum = crc.to_bytes(4, "little")
    return b"".join((head[:_CHECKSUM_OFFSET], checksum, head[_CHECKSUM_END:], body, data))


def start_of(frame_type: int, flags: int = 0) -> bytes:
    """What a frame's header has before the length of its body."""
    return encode(frame_type, b"", flags=flags)[:_LENGTH_OFFSET]


class PlainFrames:
    """Frames of one type that differ from each other in length, count and body alone, as all frames
    of clients do. The rest of their header is packed once: a fifth of the work on a small one.
    """

    __slots__ = ("_ends", "_flags", "_start", "_type")

    def __init__(self, frame_type: int, flags: int = 0) -> None:
        self._type = frame_type
        self._flags = flags
        self._start = start_of(frame_type, flags)
        # The last 32 bytes of the header, by count.
        self._ends = [encode(frame_type, b"", count=count)[_CHECKSUM_END:] for count in range(64)]

    def encode(self, body: bytes, count: int) -> bytes:
        """The same as the function `encode`. Raises ValueError when the body is too large."""
        size = len(body)
        if size > _SMALL_BYTES or count >= len(self._ends):
            return encode(self._type, body, flags=self._flags, count=count)
        end = self._ends[count]
        crc = google_crc32c.value(_pack_parts(self._start, size, 0, end) + body)
        return _pack_parts(self._start, size, crc, end) + body


def bare_header(frame_type: int, length: int) -> bytes:
    """The header of a frame of TLS: it tells nothing but its type and the length of its body."""
    return _pack(MAGIC, VERSION, frame_type, 0, length, 0, 0, 0, 0, 0, 0)


def body_length(head: bytes, start: int = 0) -> int:
    """What the header that begins at `start` says."""
    return int.from_bytes(head[start + _LENGTH_OFFSET : start + _CHECKSUM_OFFSET], "little")


def type_of(head: bytes) -> int:
    """What the header says, of which the first half must be there."""
    return head[_TYPE_OFFSET]


def check_form(head: bytes) -> None:
    """Raises FrameError when this header, or the part of one that is there, is not of this
    protocol, whatever its type, length and checksum are.
    """
    if len(head) < HEADER_SIZE:
        if head[:4] != _MAGIC_BYTES[: len(head)]:
            raise _no_magic(head)
        return
    magic, version, _, _, _, _, _, _, _, _, reserved = HEADER.unpack(head)
    if magic != MAGIC:
        raise _no_magic(head)
    if version != VERSION:
        raise FrameError(
            "version",
            f"a frame of version {version}, and this program knows version {VERSION}: install "
            "programs that go together (raft-agent on all members, and raftctl)",
        )
    if reserved:
        raise FrameError("version", f"reserved header field is {reserved:#x}, not 0")


class FrameReader:
    """Cuts a byte stream into frames.

    `types` are the frame types welcome on this connection; `max_body_bytes` is its limit.
    `checksum_optional`: a checksum of 0 means "not computed" (the Unix socket, for simple clients).

    A header is checked as soon as it is there, so a frame that is too large costs nothing; memory
    grows with the bytes that came, not with what a header promises.
    """

    def __init__(
        self,
        types: frozenset[int],
        *,
        max_body_bytes: int = MAX_BODY_BYTES,
        checksum_optional: bool = False,
    ) -> None:
        self._types = types
        self._max_body_bytes = max_body_bytes
        self._checksum_optional = checksum_optional
        self._head = b""  # of the frame that is not there in full
        self._fields: tuple[int, ...] | None = None  # its header, once it is
        self._pieces: list[bytes] = []  # of its body
        self._pieces_bytes = 0

    @property
    def pending_bytes(self) -> int:
        """How much of a frame that is not there in full has come: after the last byte of a stream
        anything but 0 means that it was cut short.
        """
        return len(self._head) + self._pieces_bytes

    def expect(self, types: frozenset[int], *, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        """From the next header on other types and another limit hold (after a handshake)."""
        self._types = types
        self._max_body_bytes = max_body_bytes

    def only_body(self, data: bytes, start: bytes) -> bytes | None:
        """The body of the one frame that `data` is from its first to its last byte, when the frame
        has this `start_of` and its checksum was not computed. None when it is anything else: then
        `feed` has to read it. Clients that wait for each answer send nothing else than that.
        """
        if self._head or len(data) < HEADER_SIZE:
            return None
        begin, size, checksum, _, reserved = _unpack_parts(data)
        is_plain = begin == start and size == len(data) - HEADER_SIZE
        return data[HEADER_SIZE:] if is_plain and not checksum and not reserved else None

    def feed(self, data: bytes) -> list[Frame]:
        """Take in `data`; the frames that are complete now. Raises FrameError at the first bad one,
        after which the stream is lost: close the connection.
        """
        frames: list[Frame] = []
        offset = 0
        if not self._head:
            # The usual case, without the detour by way of what is kept between two calls.
            size = len(data)
            while size - offset >= HEADER_SIZE:
                fields = HEADER.unpack_from(data, offset)
                self._check(fields, data, offset)
                start = offset + HEADER_SIZE
                end = start + fields[_LENGTH]
                if end > size:
                    break
                if fields[_CHECKSUM] or not self._checksum_optional:
                    self._check_sum(fields, data[offset:start], data[start:end])
                frames.append(_frame(fields, data[start:end]))
                offset = end
            if offset == size:
                return frames
        while True:
            if self._fields is None:
                offset = self._take_head(data, offset)
                if self._fields is None:
                    return frames
            missing = self._fields[_LENGTH] - self._pieces_bytes
            if len(data) - offset < missing:
                self._keep(data[offset:] if offset else data)
                return frames
            body = data[offset : offset + missing]
            offset += missing
            if self._pieces:
                body = b"".join((*self._pieces, body))
                self._pieces, self._pieces_bytes = [], 0
            if self._fields[_CHECKSUM] or not self._checksum_optional:
                self._check_sum(self._fields, self._head, body)
            frames.append(_frame(self._fields, body))
            self._head = b""
            self._fields = None

    def _keep(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._pieces_bytes += len(piece)
        # Each piece costs some memory beside its bytes, and a peer may send them one by one. So
        # many may wait that joining them costs no more than a fixed number of bytes for each.
        if len(self._pieces) * _PIECE_BYTES > self._pieces_bytes + _SLACK_BYTES:
            self._pieces = [b"".join(self._pieces)]

    def _take_head(self, data: bytes, offset: int) -> int:
        """Read on in the header; the new offset. Sets `_fields` once the header is there."""
        end = offset + HEADER_SIZE - len(self._head)
        head = self._head + data[offset:end] if self._head else data[offset:end]
        self._head = head
        if len(head) < HEADER_SIZE:
            if head[:4] != _MAGIC_BYTES[: len(head)]:
                raise _no_magic(head)
            return len(data)
        fields = HEADER.unpack(head)
        self._check(fields, head, 0)
        self._fields = fields
        return end

    def _check(self, fields: tuple[int, ...], data: bytes, offset: int) -> None:
        """Raises FrameError when these fields, which stand in `data` at `offset`, can't be the
        header of a frame that is welcome here."""
        magic, version, frame_type, _, length, _, _, _, _, _, reserved = fields
        if magic != MAGIC or version != VERSION or reserved:
            check_form(data[offset : offset + HEADER_SIZE])
        if frame_type not in self._types:
            raise _unexpected(frame_type)
        if length > self._max_body_bytes:
            raise FrameError(
                "length", f"frame body of {length} bytes is over the limit {self._max_body_bytes}"
            )

    def _check_sum(self, fields: tuple[int, ...], head: bytes, body: bytes) -> None:
        frame_type = fields[_TYPE]
        covered = body[:APPEND_FIELDS_SIZE] if frame_type == _APPEND_ENTRIES else body
        crc = google_crc32c.value(head[:_CHECKSUM_OFFSET] + _NO_CHECKSUM + head[_CHECKSUM_END:])
        if google_crc32c.extend(crc, covered) != fields[_CHECKSUM]:
            raise FrameError("checksum", f"checksum of a frame of type {frame_type} is wrong")


def _unexpected(frame_type: int) -> FrameError:
    if frame_type == FrameType.TLS_HANDSHAKE:
        return FrameError("tls_not_set", "it speaks TLS, and [tls] is not set here: set it at both")
    if frame_type == FrameType.CLIENT_REQUEST:
        return FrameError("remote_client", "a client's request where none is served: set [tls]")
    return FrameError("type", f"frame of type {frame_type} is not expected here")


def _frame(fields: tuple[int, ...], body: bytes) -> Frame:
    _, _, frame_type, flags, _, _, sender, term, request_id, count, _ = fields
    return Frame(frame_type, flags, sender, term, request_id, count, body)


def _no_magic(head: bytes) -> FrameError:
    text = f"frame starts with {head[:4]!r}, not with {_MAGIC_BYTES!r}"
    if head.startswith(b"HTTP"):
        text += ": that is an HTTP server, perhaps an agent's http_addr; use its listen_addr"
    return FrameError("magic", text)
