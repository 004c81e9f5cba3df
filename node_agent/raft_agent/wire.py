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
MAX_BODY_BYTES = 32 << 20

# AppendEntries bodies start with this many bytes of fields; the batches behind them carry their own
# CRC32C each, so the frame's checksum stops here instead of reading every byte once per follower.
APPEND_FIELDS_SIZE = 32

_CHECKSUM_OFFSET = 12


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
    CLIENT_REQUEST = 32
    CLIENT_REPLY = 33
    CLIENT_PUSH = 34
    FORWARD_REQUEST = 35
    FORWARD_REPLY = 36


class Flag(enum.IntFlag):
    """`JSON`: a client frame whose body is JSON instead of MessagePack."""

    JSON = 1


class FrameError(ValueError):
    """The bytes are no frame of this protocol; the connection can't go on. `reason` is a short
    stable word for counters: "magic", "version", "type", "length", "checksum".
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One frame. `count` is the number of entries or requests within; `body` is a copy-free view
    into the reader's buffer only as long as nothing more is fed; it is bytes here.
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
    batches: tuple[bytes, ...] = (),
) -> bytes:
    """One frame as bytes. `batches` (AppendEntries only) follow `body` and have CRCs of their own.

    Raises ValueError when the body is larger than MAX_BODY_BYTES.
    """
    length = len(body) + sum(map(len, batches))
    if length > MAX_BODY_BYTES:
        raise ValueError(f"frame body of {length} bytes is over {MAX_BODY_BYTES}")
    head = HEADER.pack(
        MAGIC, VERSION, frame_type, flags, length, 0, sender, term, request_id, count, 0
    )
    crc = google_crc32c.extend(google_crc32c.value(head), body)
    head = head[:_CHECKSUM_OFFSET] + crc.to_bytes(4, "little") + head[_CHECKSUM_OFFSET + 4 :]
    return b"".join((head, body, *batches))


class FrameReader:
    """Cuts a byte stream into frames.

    `types` are the frame types welcome on this connection; `max_body_bytes` is its limit.
    `checksum_optional`: a checksum of 0 means "not computed" (the Unix socket, for simple clients).
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
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Take in `data`; the frames that are complete now. Raises FrameError at the first bad one,
        after which the stream is lost: close the connection.
        """
        buffer = self._buffer
        if buffer:
            buffer += data
            view: bytes | bytearray = buffer
        else:
            view = data
        frames: list[Frame] = []
        offset = 0
        size = len(view)
        while size - offset >= HEADER_SIZE:
            frame, length = self._frame_at(view, offset, size)
            if frame is None:
                break
            frames.append(frame)
            offset += length
        if view is buffer:
            del buffer[:offset]
        else:
            buffer += data[offset:]
        return frames

    def _frame_at(
        self, view: bytes | bytearray, offset: int, size: int
    ) -> tuple[Frame | None, int]:
        (
            magic,
            version,
            frame_type,
            flags,
            length,
            checksum,
            sender,
            term,
            request_id,
            count,
            reserved,
        ) = HEADER.unpack_from(view, offset)
        if magic != MAGIC:
            raise FrameError("magic", f"frame starts with {magic:#010x}, not with RAFT")
        if version != VERSION or reserved:
            raise FrameError(
                "version", f"frame of version {version}; this program speaks {VERSION}"
            )
        if frame_type not in self._types:
            raise FrameError("type", f"frame of type {frame_type} is not expected here")
        if length > self._max_body_bytes:
            raise FrameError(
                "length", f"frame body of {length} bytes is over the limit {self._max_body_bytes}"
            )
        start = offset + HEADER_SIZE
        end = start + length
        if end > size:
            return None, 0
        body = bytes(view[start:end])
        if checksum or not self._checksum_optional:
            head = bytes(view[offset : offset + _CHECKSUM_OFFSET]) + bytes(4)
            head += bytes(view[offset + _CHECKSUM_OFFSET + 4 : start])
            covered = body[:APPEND_FIELDS_SIZE] if frame_type == FrameType.APPEND_ENTRIES else body
            if google_crc32c.extend(google_crc32c.value(head), covered) != checksum:
                raise FrameError("checksum", f"checksum of a frame of type {frame_type} is wrong")
        return Frame(frame_type, flags, sender, term, request_id, count, body), HEADER_SIZE + length
