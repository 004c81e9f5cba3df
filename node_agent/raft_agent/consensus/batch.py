"""The one encoding of log entries: a batch, written once by the leader.

The same bytes are appended to the leader's log, sent to the followers and appended to theirs. A
batch holds `count` consecutive entries of one term. Only the state machine looks into the payload;
the core reads the payload of configuration batches alone.

Layout, little endian::

    header   magic "RBAT" u32, version u8, kind u8, flags u16, first_index u64, term u64,
             count u32, payload length u32, CRC32C of the payload u32,
             CRC32C of the 36 bytes before u32                                      40 bytes
    payload
    header   once more, so that a batch with one damaged header can still be named  40 bytes

The flag ZERO_RUN says that ZERO_RUN_BYTES zeros or more follow each other somewhere in the payload.
Without it a stretch of zeros in a stored batch is no part of it, so the log can tell sectors that
were never written from a payload that looks like them.

Magic, version and the header's checksum stand where they do in all versions, so that a batch of
another version is told from a damaged one.

A leader never splits or joins a batch once it has an index, so two logs that hold an entry with the
same index and term hold the same batch around it (the Log Matching Property, lifted to batches);
logs are cut at batch boundaries only.
"""

from __future__ import annotations

import enum
import struct

import google_crc32c
import msgspec

MAGIC = 0x54414252  # "RBAT"
VERSION = 1
HEADER = struct.Struct("<IBBHQQIII")
HEADER_SIZE = HEADER.size + 4
OVERHEAD = 2 * HEADER_SIZE
MAX_PAYLOAD_BYTES = 16 << 20
# Results and indexes are made for as many entries as a header says: it must not be able to say any
# number. A leader makes batches of some thousands.
MAX_ENTRIES = 1 << 16
ZERO_RUN = 1  # the one flag that is known
ZERO_RUN_BYTES = 128

_U32 = struct.Struct("<I")
_ZERO_RUN = bytes(ZERO_RUN_BYTES)


class BatchKind(enum.IntEnum):
    """What the payload is."""

    NOOP = 0
    COMMANDS = 1
    CONFIGURATION = 2
    AUDIT = 3


class BatchHeader(msgspec.Struct, frozen=True, gc=False):
    """One decoded header; `size` is the length of the whole record in bytes."""

    kind: int
    first_index: int
    term: int
    count: int
    payload_length: int
    payload_crc: int
    flags: int = 0

    @property
    def size(self) -> int:
        return self.payload_length + OVERHEAD

    @property
    def last_index(self) -> int:
        return self.first_index + self.count - 1


class BatchError(ValueError):
    """The bytes are no batch, or a damaged one; the text says which field is wrong."""


class UnknownBatchError(BatchError):
    """An intact header of a version, or with a flag, that this program does not know."""


class Batch(msgspec.Struct, frozen=True, gc=False):
    """`count` entries from `first_index` on; `record` is the whole encoding, headers included."""

    first_index: int
    term: int
    kind: int
    count: int
    record: bytes

    @property
    def last_index(self) -> int:
        return self.first_index + self.count - 1

    @property
    def payload(self) -> memoryview:
        return memoryview(self.record)[HEADER_SIZE:-HEADER_SIZE]


def encode(kind: int, first_index: int, term: int, count: int, payload: bytes) -> Batch:
    """Make the batch that the entries `first_index` … `first_index + count - 1` will be for ever.

    Raises ValueError when the payload is larger than MAX_PAYLOAD_BYTES, and for less than one entry
    or more than MAX_ENTRIES.
    """
    if not 1 <= count <= MAX_ENTRIES:
        raise ValueError(f"a batch holds 1 to {MAX_ENTRIES} entries, not {count}")
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"payload of {len(payload)} bytes is over {MAX_PAYLOAD_BYTES}")
    head = HEADER.pack(
        MAGIC,
        VERSION,
        kind,
        ZERO_RUN if payload.find(_ZERO_RUN) >= 0 else 0,
        first_index,
        term,
        count,
        len(payload),
        google_crc32c.value(payload),
    )
    head += _U32.pack(google_crc32c.value(head))
    return Batch(first_index, term, kind, count, b"".join((head, payload, head)))


def decode_header(data: bytes | memoryview, offset: int = 0) -> BatchHeader:
    """Decode the 40 bytes at `offset`. Raises BatchError when they are no intact header, and
    UnknownBatchError when they are one of another version."""
    if len(data) - offset < HEADER_SIZE:
        raise BatchError(f"a header needs {HEADER_SIZE} bytes, {len(data) - offset} are there")
    magic, version, kind, flags, first_index, term, count, length, crc = HEADER.unpack_from(
        data, offset
    )
    if magic != MAGIC:
        raise BatchError(f"magic is {magic:#010x}, not {MAGIC:#010x}")
    head = bytes(data[offset : offset + HEADER.size])
    if _U32.unpack_from(data, offset + HEADER.size)[0] != google_crc32c.value(head):
        raise BatchError("header checksum does not match")
    if version != VERSION or flags & ~ZERO_RUN:
        raise UnknownBatchError(
            f"it is a batch of version {version} with the flags {flags:#x}, and this program knows "
            f"version {VERSION} with the flags up to {ZERO_RUN:#x}"
        )
    if not 1 <= count <= MAX_ENTRIES or first_index < 1 or term < 1 or length > MAX_PAYLOAD_BYTES:
        raise BatchError(f"impossible header: index {first_index}, count {count}, length {length}")
    return BatchHeader(kind, first_index, term, count, length, crc, flags)


def decode(data: bytes | memoryview, offset: int = 0) -> Batch:
    """Decode and check the whole batch at `offset`.

    Raises BatchError when it is cut short or a checksum does not match.
    """
    header = decode_header(data, offset)
    end = offset + header.size
    if end > len(data):
        raise BatchError(f"batch of {header.size} bytes is cut short at {len(data) - offset}")
    record = bytes(data[offset:end])
    body_end = HEADER_SIZE + header.payload_length
    if google_crc32c.value(record[HEADER_SIZE:body_end]) != header.payload_crc:
        raise BatchError(f"payload checksum does not match at index {header.first_index}")
    if record[body_end:] != record[:HEADER_SIZE]:
        raise BatchError(f"the two headers differ at index {header.first_index}")
    return Batch(header.first_index, header.term, header.kind, header.count, record)
