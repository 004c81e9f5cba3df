"""The bytes of a snapshot file. Pure: no I/O.

A file is written once, from front to back. All integers are little endian::

    preamble  magic "RAFTSNAP", format version u16, zero u16, CRC32C of these 12 bytes u32
    header    configuration length u32, index u64, term u64, configuration index u64, configuration
              (MessagePack; the cluster id is in it), CRC32C of the header up to here u32
    block     length u32 (never 0), CRC32C u32, payload
    end       zero u32, CRC32C u32, number of blocks u64; nothing follows

The preamble is the same in all versions, so that a program tells a file that is newer than itself
from a damaged one. A block's CRC32C is that of its number (from 0 on, u64), its length and its
payload, and so that of the end, whose number is the number of blocks: a block that is missing,
doubled or in another's place is noticed. What a payload means is the state machine's business.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import google_crc32c
import msgspec

from raft_agent.consensus.types import Configuration, SnapshotMeta
from raft_agent.storage.format import FormatError, UnknownVersionError
from raft_agent.storage.judge import decode_configuration
from raft_agent.versions import Versions

SNAPSHOT_VERSION = 1
SNAPSHOT_VERSIONS = Versions(1, SNAPSHOT_VERSION)
MAX_BLOCK_BYTES = 64 << 20
SUFFIX = ".snap"

_MAGIC = b"RAFTSNAP"
_PREAMBLE = struct.Struct("<8sHH")
_HEADER = struct.Struct("<IQQQ")
_BLOCK = struct.Struct("<II")
_NUMBER_AND_LENGTH = struct.Struct("<QI")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_MAX_CONFIGURATION_BYTES = 16 << 20
_DIGITS = 20


class SnapshotHeader(msgspec.Struct, frozen=True):
    """The fields of SnapshotMeta that stand in the file itself."""

    index: int
    term: int
    configuration_index: int
    configuration: Configuration

    def meta(self, size_bytes: int, checksum: int) -> SnapshotMeta:
        """The same of a file of this size and checksum."""
        fields = (self.configuration_index, self.configuration)
        return SnapshotMeta(self.index, self.term, size_bytes, checksum, *fields)


class SnapshotDamageError(FormatError):
    """The file is not what was written; `offset` is where that shows."""

    def __init__(self, what: str, offset: int) -> None:
        self.offset = offset
        super().__init__(what)


def snapshot_name(index: int, term: int) -> str:
    """The name of the file with the snapshot of this entry; names sort by index."""
    return f"{index:0{_DIGITS}d}-{term:0{_DIGITS}d}{SUFFIX}"


def parse_snapshot_name(name: str) -> tuple[int, int] | None:
    """(index, term) that a snapshot's file name says; None when it is no snapshot's name."""
    index, dash, term = name.removesuffix(SUFFIX).partition("-")
    if not (dash and index.isdecimal() and term.isdecimal() and name.isascii()):
        return None
    found = int(index), int(term)
    return found if 0 not in found and snapshot_name(*found) == name else None


def encode_header(header: SnapshotHeader) -> bytes:
    """Preamble and header."""
    preamble = _PREAMBLE.pack(_MAGIC, SNAPSHOT_VERSION, 0)
    configuration = msgspec.msgpack.encode(header.configuration)
    fields = (header.index, header.term, header.configuration_index)
    body = _HEADER.pack(len(configuration), *fields) + configuration
    return preamble + _checksum(preamble) + body + _checksum(body)


def encode_block_prefix(number: int, payload: bytes) -> bytes:
    """What stands in front of the payload of the block `number`. Raises ValueError for payloads
    that are empty or larger than MAX_BLOCK_BYTES.
    """
    if not 0 < len(payload) <= MAX_BLOCK_BYTES:
        raise ValueError(f"a block of {len(payload)} bytes is none of 1 to {MAX_BLOCK_BYTES}")
    return _BLOCK.pack(len(payload), _block_crc(number, payload))


def encode_end(blocks: int) -> bytes:
    """What stands behind the last one of so many blocks."""
    return _BLOCK.pack(0, _block_crc(blocks, b"")) + _U64.pack(blocks)


class SnapshotReader:
    """Reads a snapshot from front to back: `header`, then `blocks()`, then `meta()`.

    `read(n)` gives the next n bytes of the file, fewer only at its end. Raises SnapshotDamageError
    and UnknownVersionError from the constructor on, and whatever `read` raises.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._offset = 0
        self._checksum = 0
        self.header = self._read_header()

    def blocks(self) -> Iterator[bytes]:
        """The payloads, each checked before it is given out; the last one is followed by a check
        that the file ends where it should.
        """
        number = 0
        while True:
            start = self._offset
            length, crc = _BLOCK.unpack(self._take(_BLOCK.size))
            if length > MAX_BLOCK_BYTES:
                raise SnapshotDamageError(f"a block of {length} bytes can't be", start)
            payload = self._take(length)
            if crc != _block_crc(number, payload):
                raise SnapshotDamageError(f"block {number} does not match its checksum", start)
            if not length:
                break
            yield payload
            number += 1
        start = self._offset
        if _U64.unpack(self._take(_U64.size))[0] != number:
            raise SnapshotDamageError(f"its end does not say that there are {number} blocks", start)
        if self._read(1):
            raise SnapshotDamageError("something follows its end", self._offset)

    def meta(self) -> SnapshotMeta:
        """What the file holds, once all blocks have been read."""
        return self.header.meta(self._offset, self._checksum)

    def _read_header(self) -> SnapshotHeader:
        preamble = self._take(_PREAMBLE.size)
        if self._take(_U32.size) != _checksum(preamble):
            raise SnapshotDamageError("its first bytes do not match their checksum", 0)
        magic, version, _ = _PREAMBLE.unpack(preamble)
        if magic != _MAGIC:
            raise SnapshotDamageError(f"it starts with {magic!r}, not with {_MAGIC!r}", 0)
        if version not in SNAPSHOT_VERSIONS:
            raise UnknownVersionError(version, SNAPSHOT_VERSIONS)
        start = self._offset
        fields = self._take(_HEADER.size)
        length, index, term, configuration_index = _HEADER.unpack(fields)
        if length > _MAX_CONFIGURATION_BYTES:
            raise SnapshotDamageError(f"a configuration of {length} bytes can't be", start)
        raw = self._take(length)
        if self._take(_U32.size) != _checksum(fields + raw):
            raise SnapshotDamageError("its header does not match its checksum", start)
        configuration = decode_configuration(raw)
        if configuration is None or not term or not 0 < configuration_index <= index:
            raise SnapshotDamageError("its header says what can't be", start)
        return SnapshotHeader(index, term, configuration_index, configuration)

    def _take(self, size: int) -> bytes:
        data = self._read(size)
        if len(data) < size:
            raise SnapshotDamageError("it ends too early", self._offset + len(data))
        self._offset += size
        self._checksum = google_crc32c.extend(self._checksum, data)
        return data


def _checksum(data: bytes) -> bytes:
    return _U32.pack(google_crc32c.value(data))


def _block_crc(number: int, payload: bytes) -> int:
    return int(
        google_crc32c.extend(
            google_crc32c.value(_NUMBER_AND_LENGTH.pack(number, len(payload))), payload
        )
    )
