"""What the first place in a segment means that holds no good batch. Pure.

Segments are written with zeros beforehand, and a group of batches is written only once the one
before is on the medium. So after a power failure everything but the last group is there, and of
that group any sectors may be missing, in any order: the old zeros stand there, or the file ends. A
group with a missing part is *torn*: its sync never came back, so nobody was told that it is on
disk, and it may be cut off, batches that are there in full included. A batch that is there to its
end and does not match its checksums is *damaged*: it may have been acknowledged.

Which group is the last one is what the sync markers say: an entry is known to have been on the
medium when a marker behind it names it or a later one. Whatever is wrong with such an entry is
damage in the middle of the log. A marker that can't be read only leaves more entries in doubt.

In the last group a *missing sector* is told from damage like this: all that the batch has in one
sector of 512 bytes is zero, although at least two bits of it can't have been. One turned bit, the
smallest damage, explains no missing sector. What can't have been zero is known of the headers,
because there are two copies, and of any ZERO_RUN_BYTES of a payload whose header does not say that
it holds such a run. A device that loses a whole sector of a synced group without a word is taken
for a power failure; so is one that does not sync.

Of a write that stopped part-way, at any byte, all that follows is zero. Then a trailing header of
zeros is enough, or an intact payload with a trailer that stops part-way; only a trailer that
differs in one bit is damaged. In all other cases of doubt a batch is damaged, and what nothing
explains is *broken*. A batch whose payload and one header are intact could be put together again;
it is damaged all the same: a disk that turned one byte is not asked to keep the rest.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

import google_crc32c
import msgspec

from raft_agent.consensus import batch as batches
from raft_agent.consensus.batch import BatchHeader, BatchKind
from raft_agent.consensus.types import Configuration
from raft_agent.storage.format import (
    SYNC_MAGIC,
    SYNC_MARKER_SIZE,
    decode_sync_marker,
    encode_sync_marker,
)

SECTOR_BYTES = 512
KINDS = frozenset(int(kind) for kind in BatchKind)

_HEADER_SIZE = batches.HEADER_SIZE
_MAGIC_BYTES = batches.MAGIC.to_bytes(4, "little")
_ZEROS = bytes(64 << 10)
_LEAST_LOST_BITS = 2

_crc32c = google_crc32c.value
# The CRC of anything followed by its own CRC is the same number: one call checks a header.
INTACT = _crc32c(bytes(4) + _crc32c(bytes(4)).to_bytes(4, "little"))


class Verdict(enum.StrEnum):
    """What follows the last good batch of a segment.

    CLEAN: nothing. TORN: the rest of a group that was never written to its end. DAMAGED: a batch of
    the last group is there with bad checksums, and all behind it has a known term and index.
    UNKNOWN: an intact batch of a kind or a version that this program does not know. BROKEN: a bad
    batch that is not in the last group, or bytes that can't be explained.
    """

    CLEAN = "clean"
    TORN = "torn"
    DAMAGED = "damaged"
    UNKNOWN = "unknown"
    BROKEN = "broken"


class Judgement(msgspec.Struct, frozen=True):
    """`reason` is for people. (`damage_term`, `damage_index`), when DAMAGED: the last entry of the
    last batch in that group which may have been acknowledged.
    """

    verdict: Verdict
    reason: str = ""
    damage_term: int = 0
    damage_index: int = 0


class _Finding(msgspec.Struct):
    """What stands where a batch should. `reason` says what is wrong, "" for a good batch.

    With a `header` it is known that the batch reaches from `begin`, behind its marker, to `end`.
    `is_torn`: a part of it was never written. `is_unknown`: another version wrote it. `is_broken`:
    nothing explains it.
    """

    reason: str = ""
    header: BatchHeader | None = None
    begin: int = 0
    end: int = 0
    is_torn: bool = False
    is_unknown: bool = False
    is_broken: bool = False


def judge(data: bytes, pos: int, index: int, last_term: int) -> Judgement:
    """What it means that no good batch with first entry `index` is at byte `pos` of a segment.

    `last_term`: of the entry before. Raises RuntimeError when there is one.
    """
    if is_zero(data, pos):
        return Judgement(Verdict.CLEAN)
    found = _look(data, pos, index, last_term)
    if not found.reason and data.startswith(_MAGIC_BYTES, pos) and _header_at(data, pos) is None:
        # A scan takes what begins like a batch for one, and so comes to no marker.
        what = f"what stands in front of the batch of index {index} is neither a marker nor a batch"
        return Judgement(Verdict.BROKEN, what)
    if not found.reason:
        raise RuntimeError(f"scan stopped at byte {pos} before a good batch")
    if found.is_unknown:
        return Judgement(Verdict.UNKNOWN, found.reason)
    if found.is_broken:
        return Judgement(Verdict.BROKEN, found.reason)
    synced = _synced_behind(data, pos, index)
    if synced is not None:
        at, synced_index = synced
        reason = f"all up to index {synced_index} was on disk, says the sync marker at byte {at}"
        return Judgement(Verdict.BROKEN, f"{found.reason}; {reason}")
    if found.is_torn:
        return Judgement(Verdict.TORN, found.reason)
    return _judge_damage(data, pos, found)


def is_zero(data: bytes, start: int = 0) -> bool:
    """Whether there are only zeros from byte `start` on."""
    size = len(data)
    while start < size:
        piece = data[start : start + len(_ZEROS)]
        if piece != _ZEROS and any(piece):
            return False
        start += len(piece)
    return True


def is_marker_damaged(data: bytes, pos: int, index: int) -> bool:
    """Whether what is at `pos` in front of the good batch of `index` is a marker with wrong bytes,
    rather than one with a missing sector: that is what a power failure may leave of a group whose
    batches are all there.
    """
    marker = encode_sync_marker(index - 1, pos)
    return not data.startswith(marker, pos) and not _misses_marker(data, pos, marker)


def decode_configuration(payload: bytes) -> Configuration | None:
    """The configuration in a batch's payload; None when there is none that can be read."""
    try:
        return msgspec.msgpack.decode(payload, type=Configuration)
    except (ValueError, OverflowError, RecursionError):
        return None


def _synced_behind(data: bytes, pos: int, index: int) -> tuple[int, int] | None:
    """A marker at or behind `pos` by which `index` was on the medium: its place, what it says."""
    at = data.find(SYNC_MAGIC, pos)
    while at >= 0:
        synced_index = decode_sync_marker(data, at)
        if synced_index is not None and synced_index >= index:
            return at, synced_index
        at = data.find(SYNC_MAGIC, at + 1)
    return None


def _judge_damage(data: bytes, start: int, found: _Finding) -> Judgement:
    """The batch at `start` is damaged, and no marker says that its group is not the last one.

    Batches without a marker between them are of one group: when a later one is torn, so was the
    sync of this one. All others count, for they may have been acknowledged.
    """
    reason, last = found.reason, found.header
    same_group = True
    while found.header is not None:
        last = last if found.is_torn else found.header
        pos, index, term = found.end, found.header.last_index + 1, found.header.term
        if is_zero(data, pos):
            break
        found = _look(data, pos, index, term)
        if found.is_broken or found.is_unknown:
            return Judgement(
                Verdict.BROKEN, f"{reason}; and behind it, at byte {pos}: {found.reason}"
            )
        same_group = same_group and found.header is not None and found.begin == pos
        if found.is_torn and same_group:
            return Judgement(
                Verdict.TORN, f"{reason}; and behind it, at byte {pos}: {found.reason}"
            )
    if last is None:
        raise RuntimeError(f"what is at byte {start} is neither torn nor damaged")
    return Judgement(Verdict.DAMAGED, reason, last.term, last.last_index)


def _look(data: bytes, pos: int, index: int, last_term: int) -> _Finding:
    """What is at `pos`, where the batch of `index` should be, or the marker in front of it."""
    marker = encode_sync_marker(index - 1, pos)
    behind = pos + SYNC_MARKER_SIZE
    if data.startswith(marker, pos):
        if _header_at(data, behind) is None:
            return _look_for_trailer(data, (behind,), index, last_term)
        return _look_at_batch(data, behind, index, last_term)
    header = None if _header_at(data, pos) else _header_at(data, behind)
    if isinstance(header, BatchHeader) and header.first_index == index:
        found = _look_at_batch(data, behind, index, last_term)
        found.is_torn = found.is_torn or (bool(found.reason) and _misses_marker(data, pos, marker))
        return found
    if _header_at(data, pos) is None:
        return _look_for_trailer(data, (pos, behind), index, last_term)
    return _look_at_batch(data, pos, index, last_term)


def _header_at(data: bytes, at: int) -> BatchHeader | batches.BatchError | None:
    """The intact header there, or what is wrong with its fields; None when it is not intact."""
    head = data[at : at + _HEADER_SIZE]
    if len(head) < _HEADER_SIZE or _crc32c(head) != INTACT:
        return None
    try:
        return batches.decode_header(head)
    except batches.BatchError as error:
        return error


def _look_at_batch(data: bytes, begin: int, index: int, last_term: int) -> _Finding:
    """What follows the intact front header at `begin`."""
    header = _header_at(data, begin)
    if isinstance(header, batches.UnknownBatchError):
        return _Finding(f"at index {index}: {header}", is_unknown=True)
    if not isinstance(header, BatchHeader):
        return _Finding(str(header), is_broken=True)
    if header.first_index != index:
        what = f"there is a batch of index {header.first_index} where index {index} should be"
        return _Finding(what, is_broken=True)
    name = f"the batch of index {index} and term {header.term}"
    if header.term < last_term:
        what = f"{name} follows an entry of the later term {last_term}"
        return _Finding(what, is_broken=True)
    head = data[begin : begin + _HEADER_SIZE]
    tail = begin + _HEADER_SIZE + header.payload_length
    end = tail + _HEADER_SIZE
    payload, trailer = data[begin + _HEADER_SIZE : tail], data[tail:end]
    payload_intact = _crc32c(payload) == header.payload_crc
    found = _Finding("", header, begin, end)
    if trailer == head and payload_intact:
        if header.kind not in KINDS:
            found.reason = f"{name} is of kind {header.kind}, which this program does not know"
            found.is_unknown = True
        elif header.kind == BatchKind.CONFIGURATION and decode_configuration(payload) is None:
            found.reason = f"{name} holds no configuration that can be read"
            found.is_broken = True
    elif _misses_sector(data, begin, header, head):
        found.reason, found.is_torn = f"sectors of {name} were not written", True
    elif end > len(data) or (_is_unwritten(trailer, head, payload_intact) and is_zero(data, end)):
        found.reason, found.is_torn = f"{name} was not written to its end", True
    elif trailer == head:
        found.reason = f"the payload of {name} does not match its checksum"
    else:
        found.reason = f"the second header of {name} is damaged"
    return found


def _look_for_trailer(data: bytes, begins: tuple[int, ...], index: int, last_term: int) -> _Finding:
    """What it means that no intact front header is at `begins`, where the batch may start."""
    other = ""
    at = begins[0]
    while (at := data.find(_MAGIC_BYTES, at + 1)) >= 0:
        header = _header_at(data, at)
        if not isinstance(header, BatchHeader) or header.first_index < index:
            continue
        begin = at - header.payload_length - _HEADER_SIZE
        if header.first_index == index and header.term >= last_term and begin in begins:
            reason = f"the first header of index {index} (term {header.term}) is damaged"
            copy = data[at : at + _HEADER_SIZE]
            is_torn = _misses_sector(data, begin, header, copy)
            return _Finding(reason, header, begin, at + _HEADER_SIZE, is_torn)
        if not other:
            other = f", and a header of index {header.first_index} is intact at byte {at}"
    first, end = begins[0], begins[-1] + _HEADER_SIZE
    if is_zero(data, end):
        return _Finding(f"the header of index {index} was not written to its end", is_torn=True)
    # Headers are never zero, so neither is any sector that one of them is in.
    last_sector_end = end + -end % SECTOR_BYTES
    if any(lo < end for lo, _ in _zero_sectors(data, first, last_sector_end)):
        return _Finding(f"index {index} was not written in full", is_torn=True)
    if not other and not any(data[first : first + _HEADER_SIZE]):
        return _Finding(
            f"index {index} was not written, but unused space is not zero", is_torn=True
        )
    return _Finding(f"what should be index {index} can't be read{other}", is_broken=True)


def _is_unwritten(trailer: bytes, head: bytes, payload_intact: bool) -> bool:
    """Whether `trailer` looks like zeros that the end of a batch was never written over."""
    written = trailer.rstrip(b"\0")
    if not written:
        return True
    if not payload_intact or not head.startswith(written):
        return False
    return _set_bits(trailer) + _LEAST_LOST_BITS <= _set_bits(head)


def _misses_sector(data: bytes, begin: int, header: BatchHeader, head: bytes) -> bool:
    """Whether the batch at `begin` has sectors of zeros that lack bits which must have been set.

    `head`: an intact copy of its header.
    """
    body = begin + _HEADER_SIZE
    tail = body + header.payload_length
    lost_bits = 0
    for lo, hi in _zero_sectors(data, begin, tail + _HEADER_SIZE):
        for at in (begin, tail):
            lost_bits += _set_bits(head[max(lo - at, 0) : max(hi - at, 0)])
        if not header.flags & batches.ZERO_RUN:
            lost_bits += max(min(hi, tail) - max(lo, body), 0) // batches.ZERO_RUN_BYTES
        if lost_bits >= _LEAST_LOST_BITS:
            return True
    return False


def _misses_marker(data: bytes, pos: int, marker: bytes) -> bool:
    """The same for the marker at `pos`, which should be `marker`."""
    parts = _zero_sectors(data, pos, pos + SYNC_MARKER_SIZE)
    lost_bits = sum(_set_bits(marker[lo - pos : hi - pos]) for lo, hi in parts)
    return lost_bits >= _LEAST_LOST_BITS


def _zero_sectors(data: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts of `data[start:end]` in one sector each that hold only zeros: begin and end."""
    for sector in range(start - start % SECTOR_BYTES, min(end, len(data)), SECTOR_BYTES):
        lo, hi = max(sector, start), min(sector + SECTOR_BYTES, end, len(data))
        if data.count(0, lo, hi) == hi - lo:
            yield lo, hi


def _set_bits(data: bytes) -> int:
    return int.from_bytes(data, "little").bit_count()
