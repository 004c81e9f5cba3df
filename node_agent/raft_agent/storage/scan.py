"""What the bytes of one segment hold, and what the first bytes that are no batch mean. Pure.

A segment is written with zeros beforehand, filled from the front, and the next group of batches is
written only once the one before is on the medium. So after a crash everything but the last group
is there, and of that group any part may be missing: then the old zeros stand in its place, or the
file ends. A batch with a missing part is *torn*: nobody was told that it is on disk. A batch that
is there in full and does not match its checksums is *damaged*: it may have been acknowledged.

In doubt a batch is damaged. What is taken as torn is one of these:

- nothing but zeros from somewhere within the front header on;
- an intact front header, and zeros (or the file's end) from somewhere at or before the trailing
  header on: the trailer is all zero, or the payload is intact and the trailer stops part-way. One
  exception: a trailer that differs in a single bit is a flipped bit, not a missing byte;
- zeros where a sector's worth of the front header should be, and no header copy behind it: a
  device may write the sectors of one unfinished write in any order.

A batch whose payload and one header are intact could be put together again; it is damaged all the
same: a disk that turned one byte is not asked to keep the rest.
"""

from __future__ import annotations

import enum
from array import array

import google_crc32c
import msgspec

from raft_agent.consensus import batch as batches
from raft_agent.consensus.batch import Batch, BatchHeader, BatchKind
from raft_agent.consensus.types import Configuration
from raft_agent.storage.format import SEGMENT_HEADER_SIZE

MARK_SPACING_BYTES = 64 << 10
SECTOR_BYTES = 512

_HEADER_SIZE = batches.HEADER_SIZE
_MAGIC_BYTES = batches.MAGIC.to_bytes(4, "little")
_KINDS = frozenset(int(kind) for kind in BatchKind)
_ZEROS = bytes(64 << 10)

_crc32c = google_crc32c.value
# The CRC of anything followed by its own CRC is the same number: one call checks a header.
_INTACT = _crc32c(bytes(4) + _crc32c(bytes(4)).to_bytes(4, "little"))


class Verdict(enum.StrEnum):
    """What follows the last good batch of a segment.

    CLEAN: nothing. TORN: the rest of a write that never finished. DAMAGED: one or more batches that
    are there in full with bad checksums, all of known term and index, and nothing good behind them.
    BROKEN: good batches behind bad ones, or bytes that can't be explained.
    """

    CLEAN = "clean"
    TORN = "torn"
    DAMAGED = "damaged"
    BROKEN = "broken"


class ScanResult(msgspec.Struct):
    """One segment's good batches and what follows them.

    The batches hold the entries `first_index` … `next_index` - 1 and end at byte `end_offset`.
    `last_term`: of the last entry, or what was passed in when there is none. `term_runs` and
    `configurations` as in LogImage (a run that goes on from the segment before is left out).
    `mark_indexes` and `mark_offsets`: the first index and the place of one batch about every
    MARK_SPACING_BYTES, the first batch among them.
    `reason` (for people) and `trouble_offset` say what is wrong when `verdict` is not CLEAN;
    (`damage_term`, `damage_index`) is the last entry of the last damaged batch when DAMAGED.
    """

    first_index: int
    next_index: int
    last_term: int
    end_offset: int
    term_runs: list[tuple[int, int]]
    configurations: list[tuple[int, Configuration]]
    mark_indexes: array[int]
    mark_offsets: array[int]
    verdict: Verdict = Verdict.CLEAN
    reason: str = ""
    trouble_offset: int = 0
    damage_term: int = 0
    damage_index: int = 0


class _Finding(msgspec.Struct):
    """What one place holds; `verdict` None is a good batch. `header` and `end` are set when it is
    known where the batch ends."""

    verdict: Verdict | None
    reason: str = ""
    header: BatchHeader | None = None
    end: int = 0


def scan_segment(
    data: bytes, first_index: int, last_term: int = 0, start: int = SEGMENT_HEADER_SIZE
) -> ScanResult:
    """Read the batches in `data` (a whole segment, its header included) from byte `start` on.

    `first_index` is the index that the first batch must have, `last_term` the term of the entry
    before it. Never raises for what the bytes hold: that is what the verdict says.
    """
    result = ScanResult(first_index, first_index, last_term, start, [], [], array("Q"), array("Q"))
    _scan_good(data, result)
    _judge_rest(data, result)
    return result


def batches_between(data: bytes, start: int, end: int) -> list[Batch]:
    """The batches in `data[start:end]`, which a scan has found good: nothing is checked again."""
    found: list[Batch] = []
    unpack = batches.HEADER.unpack_from
    while start < end:
        _, _, kind, _, first_index, term, count, length, _ = unpack(data, start)
        stop = start + length + batches.OVERHEAD
        found.append(Batch(first_index, term, kind, count, data[start:stop]))
        start = stop
    return found


def is_zero(data: bytes, start: int = 0) -> bool:
    """Whether there are only zeros from byte `start` on."""
    size = len(data)
    while start < size:
        piece = data[start : start + len(_ZEROS)]
        if piece != _ZEROS and any(piece):
            return False
        start += len(piece)
    return True


def _scan_good(data: bytes, result: ScanResult) -> None:
    """Advance `result` over the good batches. The hot loop of recovery: one turn per batch."""
    unpack = batches.HEADER.unpack_from
    header_size, magic_wanted, version_wanted = _HEADER_SIZE, batches.MAGIC, batches.VERSION
    configuration, kinds, crc32c, intact = int(BatchKind.CONFIGURATION), _KINDS, _crc32c, _INTACT
    pos, index, last_term = result.end_offset, result.next_index, result.last_term
    size = len(data)
    limit = size - batches.OVERHEAD
    next_mark = pos
    while pos <= limit:
        magic, version, kind, flags, first, term, count, length, crc = unpack(data, pos)
        body = pos + header_size
        tail = body + length
        end = tail + header_size
        if magic != magic_wanted or end > size:
            break
        head = data[pos:body]
        if (
            data[tail:end] != head
            or crc32c(data[body:tail]) != crc
            or crc32c(head) != intact
            or first != index
            or term < last_term
            or version != version_wanted
            or flags
            or kind not in kinds
            or not term
            or not count
            or length > batches.MAX_PAYLOAD_BYTES
        ):
            break
        if kind == configuration:
            decoded = _decode_configuration(data[body:tail])
            if decoded is None:
                break
            result.configurations.append((first, decoded))
        if term != last_term:
            result.term_runs.append((first, term))
            last_term = term
        if pos >= next_mark:
            result.mark_indexes.append(first)
            result.mark_offsets.append(pos)
            next_mark = pos + MARK_SPACING_BYTES
        pos = end
        index += count
    result.end_offset, result.next_index, result.last_term = pos, index, last_term


def _judge_rest(data: bytes, result: ScanResult) -> None:
    """Set the verdict about what follows the good batches.

    Walks on from bad batch to bad batch as long as their ends are known: something in full behind a
    bad batch means that the bad one is not the end of the log.
    """
    pos, index, term = result.end_offset, result.next_index, result.last_term
    result.trouble_offset = pos
    torn_before = False
    while True:
        found = _judge(data, pos, index, term)
        if found.verdict is Verdict.CLEAN:
            return
        in_full = found.verdict in (None, Verdict.DAMAGED)
        behind_trouble = result.verdict is not Verdict.CLEAN
        if found.verdict is None and not behind_trouble:
            raise RuntimeError(f"scan stopped at byte {pos} before a good batch")
        if found.verdict is Verdict.BROKEN or (
            in_full and (torn_before or (found.verdict is None and behind_trouble))
        ):
            if not behind_trouble:
                result.reason = found.reason
            else:
                what = found.reason or f"index {index} is there in full"
                result.reason += f"; and behind it, at byte {pos}: {what}"
            result.verdict = Verdict.BROKEN
            return
        if not behind_trouble:
            result.verdict, result.reason = found.verdict or Verdict.BROKEN, found.reason
        torn_before = torn_before or found.verdict is Verdict.TORN
        if found.header is None:
            return
        if found.verdict is Verdict.DAMAGED:
            result.damage_term = found.header.term
            result.damage_index = found.header.last_index
        pos, index, term = found.end, found.header.last_index + 1, found.header.term


def _judge(data: bytes, pos: int, index: int, last_term: int) -> _Finding:
    """What is at `pos`, where the batch that starts with entry `index` should be."""
    head = data[pos : pos + _HEADER_SIZE]
    if len(head) < _HEADER_SIZE or _crc32c(head) != _INTACT:
        return _judge_headless(data, pos, index, last_term)
    try:
        header = batches.decode_header(head)
    except batches.BatchError as error:
        return _Finding(Verdict.BROKEN, str(error))
    if header.first_index != index:
        what = f"there is a batch of index {header.first_index} where index {index} should be"
        return _Finding(Verdict.BROKEN, what)
    name = f"the batch of index {index} and term {header.term}"
    if header.term < last_term:
        return _Finding(Verdict.BROKEN, f"{name} follows an entry of the later term {last_term}")
    body = pos + _HEADER_SIZE
    tail = body + header.payload_length
    payload = data[body:tail]
    trailer = data[tail : tail + _HEADER_SIZE]
    payload_intact = _crc32c(payload) == header.payload_crc
    end = tail + _HEADER_SIZE
    if trailer == head:
        if not payload_intact:
            reason = f"the payload of {name} does not match its checksum"
            return _Finding(Verdict.DAMAGED, reason, header, end)
        return _judge_kind(header, payload, name)
    if end > len(data) or _is_unwritten(trailer, head, payload_intact):
        return _Finding(Verdict.TORN, f"{name} was not written to its end", header, end)
    return _Finding(Verdict.DAMAGED, f"the second header of {name} is damaged", header, end)


def _judge_kind(header: BatchHeader, payload: bytes, name: str) -> _Finding:
    if header.kind not in _KINDS:
        reason = f"{name} is of kind {header.kind}, which this program does not know"
        return _Finding(Verdict.BROKEN, reason)
    if header.kind == BatchKind.CONFIGURATION and _decode_configuration(payload) is None:
        return _Finding(Verdict.BROKEN, f"{name} holds no configuration that can be read")
    return _Finding(None)


def _judge_headless(data: bytes, pos: int, index: int, last_term: int) -> _Finding:
    """What it means that there is no intact front header at `pos`."""
    if is_zero(data, pos):
        return _Finding(Verdict.CLEAN)
    if is_zero(data, pos + _HEADER_SIZE):
        return _Finding(Verdict.TORN, f"the header of index {index} was not written to its end")
    other = ""
    at = pos
    while (at := data.find(_MAGIC_BYTES, at + 1)) >= 0:
        copy = data[at : at + _HEADER_SIZE]
        if _crc32c(copy) != _INTACT:
            continue
        try:
            header = batches.decode_header(copy)
        except batches.BatchError:
            continue
        fits = header.first_index == index and header.term >= last_term
        if fits and at == pos + _HEADER_SIZE + header.payload_length:
            reason = f"the first header of index {index} (term {header.term}) is damaged"
            return _Finding(Verdict.DAMAGED, reason, header, at + _HEADER_SIZE)
        if header.first_index >= index and not other:
            other = f", and a header of index {header.first_index} is intact at byte {at}"
    if not other and _misses_sector(data[pos : pos + _HEADER_SIZE], pos):
        return _Finding(Verdict.TORN, f"index {index} was not written in full")
    reason = f"what should be index {index} can't be read{other}"
    return _Finding(Verdict.BROKEN, reason)


def _is_unwritten(trailer: bytes, head: bytes, payload_intact: bool) -> bool:
    """Whether `trailer` looks like zeros that the end of a batch was never written over."""
    written = trailer.rstrip(b"\0")
    if not written:
        return True
    if not payload_intact or not head.startswith(written):
        return False
    differing = int.from_bytes(trailer, "little") ^ int.from_bytes(head, "little")
    return differing.bit_count() > 1


def _misses_sector(head: bytes, pos: int) -> bool:
    """Whether the part of `head` (at byte `pos`) that lies in one sector is all zero."""
    boundary = -pos % SECTOR_BYTES
    return not any(head[:boundary] or head) or not any(head[boundary:] or head)


def _decode_configuration(payload: bytes) -> Configuration | None:
    try:
        return msgspec.msgpack.decode(payload, type=Configuration)
    except msgspec.DecodeError:
        return None
