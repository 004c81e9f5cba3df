"""The bytes of the data directory: segment header, groups, vote file, identity. Pure: no I/O.

Segment header and vote file hold one small record twice, in two blocks of 4096 bytes, so that one
bad sector costs neither. All integers are little endian::

    block    body, CRC32C of the body u32, zeros                                  4096 bytes
    block    the same once more                                                   4096 bytes

    segment  body = magic "RAFTSEG1", format version u16, cluster id length u16, flags u32, first
             index u64, cluster id (UTF-8, zero padded) 64 bytes; groups follow back to back from
             SEGMENT_HEADER_SIZE on, then zeros up to the end of the file (segments are written with
             zeros beforehand)
    group    what is written and synced at once: a sync marker, then batch records back to back as
             `consensus/batch.py` makes them
    marker   magic "RSYN", last index before the group u64, the marker's own offset in the file
             u64, CRC32C of the 20 bytes before u32                                 24 bytes
    last     the file `last-segment`: a copy of the header of the log's last segment, so that a log
             whose end is gone is noticed; with flag 1 when that segment is still to come: the log
             is empty, and begins behind a snapshot
    vote     body = magic "RAFTVOT1", format version u16, zero u16, zero u32, term u64,
             voted for u64, floor term u64, floor index u64

A sync marker says that all entries up to that index were on the medium before the group was begun.
It never says more than what stands in front of it, and a log is only ever cut at its end, so no
marker of a log names an index behind the log's end. Its own offset keeps a marker within a payload
(a backup of a log, say) from being taken for one of this log.

The identity is a small text file, one `name = value` a line, the last one a CRC32C of all before.
So are `word` (for how long this member promises not to vote) and `version`: the cluster version
that this member has promised to know from now on. While that is the first one there is no file.

In all versions a block starts with its magic and its format version, and a text file has a line
`format = N`: so a file of another version is told from a damaged one.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence

import google_crc32c
import msgspec

from raft_agent.consensus import batch as batches
from raft_agent.consensus.batch import Batch
from raft_agent.consensus.types import Vote
from raft_agent.versions import Versions, advise, other_version

FORMAT_VERSION = 1
FORMAT_VERSIONS = Versions(1, FORMAT_VERSION)
BLOCK_BYTES = 4096
SEGMENT_HEADER_SIZE = 2 * BLOCK_BYTES
VOTE_FILE_SIZE = 2 * BLOCK_BYTES
MAX_CLUSTER_ID_BYTES = 64
SYNC_MAGIC = b"RSYN"
SYNC_MARKER_SIZE = 24

_SEGMENT_MAGIC = b"RAFTSEG1"
_VOTE_MAGIC = b"RAFTVOT1"
_SEGMENT = struct.Struct(f"<8sHHIQ{MAX_CLUSTER_ID_BYTES}s")
_VOTE = struct.Struct("<8sHHIQQQQ")
_SYNC = struct.Struct("<4sQQ")
_U32 = struct.Struct("<I")
_TO_COME = 1
_BATCH_MAGIC = batches.MAGIC.to_bytes(4, "little")
_IDENTITY_TITLE = "raft-ebpf data directory: don't edit, don't copy to another machine"
_WORD_TITLE = "for how long this member may have promised a leader not to vote"
_PROMISE_TITLE = "the cluster version that every raft-agent on this directory must know from now on"


class FormatError(ValueError):
    """The bytes are not what they should be; the text says which part is wrong."""


class UnknownVersionError(FormatError):
    """The bytes are intact as far as can be told, but of a format that this program can't read.
    `advice` says what to do."""

    def __init__(self, found: int, known: Versions = FORMAT_VERSIONS) -> None:
        self.advice = advise(found, known)
        super().__init__(other_version("its format", found, known))


class SegmentHeader(msgspec.Struct, frozen=True):
    """`first_index`: of the segment's first entry. `intact_copies` is 2, or 1 when one is bad.
    `is_to_come`: there is no such segment yet; only in the file `last-segment`.
    """

    first_index: int
    cluster_id: str
    intact_copies: int = 2
    is_to_come: bool = False


class VoteRecord(msgspec.Struct, frozen=True):
    """A decoded vote file; `intact_copies` is 2, or 1 when one is bad."""

    vote: Vote
    intact_copies: int = 2


def segment_name(first_index: int) -> str:
    """The file name of the segment that starts with the entry `first_index`."""
    return f"{first_index:020d}.seg"


def parse_segment_name(name: str) -> int | None:
    """The first index that a segment's file name says; None when it is no segment's name."""
    digits = name.removesuffix(".seg")
    if digits == name or len(digits) != 20 or not digits.isdecimal() or not digits.isascii():
        return None
    return int(digits) or None


def encode_segment_header(first_index: int, cluster_id: str, *, is_to_come: bool = False) -> bytes:
    """SEGMENT_HEADER_SIZE bytes. Raises ValueError when the cluster id is too long."""
    raw_id = cluster_id.encode()
    if len(raw_id) > MAX_CLUSTER_ID_BYTES:
        raise ValueError(f"cluster id of {len(raw_id)} bytes is over {MAX_CLUSTER_ID_BYTES}")
    flags = _TO_COME if is_to_come else 0
    body = _SEGMENT.pack(_SEGMENT_MAGIC, FORMAT_VERSION, len(raw_id), flags, first_index, raw_id)
    return _encode_twice(body)


def decode_segment_header(data: bytes) -> SegmentHeader:
    """Decode the header at the start of a segment's bytes. Raises FormatError."""
    body, intact_copies = _decode_twice(data, _SEGMENT, _SEGMENT_MAGIC)
    _, _, id_length, flags, first_index, raw_id = _SEGMENT.unpack(body)
    if id_length > MAX_CLUSTER_ID_BYTES or first_index < 1 or flags & ~_TO_COME:
        raise FormatError(
            f"impossible header: index {first_index}, id of {id_length} bytes, flags {flags:x}"
        )
    try:
        cluster_id = raw_id[:id_length].decode()
    except UnicodeDecodeError:
        raise FormatError("its cluster id is no text") from None
    return SegmentHeader(first_index, cluster_id, intact_copies, bool(flags))


def encode_sync_marker(synced_index: int, offset: int) -> bytes:
    """The SYNC_MARKER_SIZE bytes at byte `offset` of a segment, in front of the group that starts
    with entry `synced_index` + 1.
    """
    body = _SYNC.pack(SYNC_MAGIC, synced_index, offset)
    return body + _U32.pack(google_crc32c.value(body))


def decode_sync_marker(data: bytes, offset: int) -> int | None:
    """The index that the marker at byte `offset` of a segment says; None when there is none."""
    end = offset + _SYNC.size
    if len(data) < end + _U32.size:
        return None
    magic, synced_index, own_offset = _SYNC.unpack_from(data, offset)
    crc = _U32.unpack_from(data, end)[0]
    if magic != SYNC_MAGIC or own_offset != offset or crc != google_crc32c.value(data[offset:end]):
        return None
    return int(synced_index)


def group_buffers(group: Sequence[Batch], offset: int) -> list[bytes]:
    """What to write at byte `offset` of a segment in one go: a marker, then the batches."""
    marker = encode_sync_marker(group[0].first_index - 1, offset)
    return [marker, *(batch.record for batch in group)]


def skip_marker(data: bytes, at: int) -> int:
    """Where the batch starts that is next at or behind `at`, where the one before has ended.

    What is there and is no batch is a marker, legible or not: a scan has found it good.
    """
    return at if data.startswith(_BATCH_MAGIC, at) else at + SYNC_MARKER_SIZE


def encode_vote(vote: Vote) -> bytes:
    """VOTE_FILE_SIZE bytes."""
    body = _VOTE.pack(
        _VOTE_MAGIC,
        FORMAT_VERSION,
        0,
        0,
        vote.term,
        vote.voted_for,
        vote.floor_term,
        vote.floor_index,
    )
    return _encode_twice(body)


def decode_vote(data: bytes) -> VoteRecord:
    """Decode a vote file. Raises FormatError when no copy is intact or the copies differ."""
    body, intact_copies = _decode_twice(data, _VOTE, _VOTE_MAGIC)
    _, _, _, _, term, voted_for, floor_term, floor_index = _VOTE.unpack(body)
    return VoteRecord(Vote(term, voted_for, floor_term, floor_index), intact_copies)


def encode_identity(member_id: int) -> bytes:
    """The identity file's bytes."""
    return _encode_text(_IDENTITY_TITLE, f"member_id = {member_id:016x}")


def decode_identity(data: bytes) -> int:
    """The member id that an identity file holds. Raises FormatError."""
    member_id = _decode_number(data, "member_id", base=16)
    if not 0 < member_id < 1 << 64:
        raise FormatError(f"member_id {member_id} is out of range")
    return member_id


def encode_word(word_us: int) -> bytes:
    """The bytes of the file that says for how long this member promises leaders not to vote."""
    return _encode_text(_WORD_TITLE, f"votes_withheld_us = {word_us}")


def decode_word(data: bytes) -> int:
    """The microseconds that such a file holds. Raises FormatError."""
    return _decode_number(data, "votes_withheld_us", base=10)


def encode_promise(version: int) -> bytes:
    """The bytes of the file `version`."""
    return _encode_text(_PROMISE_TITLE, f"cluster_version = {version}")


def decode_promise(data: bytes) -> int:
    """The cluster version that such a file holds. Raises FormatError."""
    return _decode_number(data, "cluster_version", base=10)


def _encode_text(title: str, line: str) -> bytes:
    text = f"# {title}\nformat = {FORMAT_VERSION}\n{line}\n"
    return f"{text}crc32c = {google_crc32c.value(text.encode()):08x}\n".encode()


def _decode_number(data: bytes, key: str, *, base: int) -> int:
    text, separator, checksum = data.rpartition(b"crc32c = ")
    if not separator or checksum != b"%08x\n" % google_crc32c.value(text):
        raise FormatError("checksum does not match")
    lines = text.decode("ascii", "replace").splitlines()
    values = {name: value for name, _, value in (line.partition(" = ") for line in lines)}
    version = values.get("format", "")
    if not re.fullmatch("[0-9]{1,9}", version):
        raise FormatError(f"format {version!r} is no version")
    if int(version) not in FORMAT_VERSIONS:
        raise UnknownVersionError(int(version))
    try:
        return int(values[key], base)
    except (KeyError, ValueError):
        raise FormatError(f"there is no {key} in it") from None


def _encode_twice(body: bytes) -> bytes:
    block = body + _U32.pack(google_crc32c.value(body))
    return block.ljust(BLOCK_BYTES, b"\0") * 2


def _decode_twice(data: bytes, layout: struct.Struct, magic: bytes) -> tuple[bytes, int]:
    """The body and how many of its two copies are intact."""
    intact: list[bytes] = []
    for start in (0, BLOCK_BYTES):
        end = start + layout.size
        body = data[start:end]
        if len(data) >= end + _U32.size and (
            _U32.unpack_from(data, end)[0] == google_crc32c.value(body)
        ):
            intact.append(body)
    if not intact:
        _refuse_other_version(data, magic)
        raise FormatError("both copies of the header are damaged")
    if intact[0] != intact[-1]:
        # Both were written in one go into a file that nobody knew yet: no crash explains this.
        raise FormatError("the two copies of the header are intact but differ")
    if not intact[0].startswith(magic):
        raise FormatError(f"it starts with {intact[0][:8]!r}, not with {magic!r}")
    version = _version_of(intact[0])
    if version not in FORMAT_VERSIONS:
        raise UnknownVersionError(version)
    return intact[0], len(intact)


def _refuse_other_version(data: bytes, magic: bytes) -> None:
    """Another version may have its checksum elsewhere: it is believed when both copies say it."""
    heads = [data[start : start + len(magic) + 2] for start in (0, BLOCK_BYTES)]
    version = _version_of(heads[0])
    if heads[0] == heads[1] and heads[0].startswith(magic) and version not in FORMAT_VERSIONS:
        raise UnknownVersionError(version)


def _version_of(block: bytes) -> int:
    return int.from_bytes(block[8:10], "little")
