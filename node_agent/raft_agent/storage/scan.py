"""What the bytes of one segment hold. Pure.

The groups of a segment follow each other without a gap, so reading stops at the first place that
holds neither a good batch nor a sync marker with a good batch behind it. `judge.py` says what that
place means. A marker that can't be read in front of a good batch costs nothing: its size is fixed.
"""

from __future__ import annotations

from array import array

import google_crc32c
import msgspec

from raft_agent.consensus import batch as batches
from raft_agent.consensus.batch import Batch, BatchKind
from raft_agent.consensus.types import Configuration
from raft_agent.storage.format import (
    SEGMENT_HEADER_SIZE,
    SYNC_MARKER_SIZE,
    encode_sync_marker,
    skip_marker,
)
from raft_agent.storage.judge import (
    INTACT,
    KINDS,
    Verdict,
    decode_configuration,
    is_marker_damaged,
    judge,
)

MARK_SPACING_BYTES = 64 << 10


class ScanResult(msgspec.Struct):
    """One segment's good batches and what follows them.

    The batches hold the entries `first_index` … `next_index` - 1 and end at byte `end_offset`.
    `last_term`: of the last entry, or what was passed in when there is none. `term_runs` and
    `configurations` as in LogImage (a run that goes on from the segment before is left out).
    `mark_indexes` and `mark_offsets`: the first index and the place of one batch about every
    MARK_SPACING_BYTES, the first batch among them; the place of the first batch of a group is its
    marker's. `bad_markers`: where a marker can't be read, missing sectors aside.
    `reason` (for people) and `trouble_offset` say what is wrong when `verdict` is not CLEAN;
    `damage_term` and `damage_index` as in Judgement.
    """

    first_index: int
    next_index: int
    last_term: int
    end_offset: int
    term_runs: list[tuple[int, int]]
    configurations: list[tuple[int, Configuration]]
    mark_indexes: array[int]
    mark_offsets: array[int]
    bad_markers: list[int]
    verdict: Verdict = Verdict.CLEAN
    reason: str = ""
    trouble_offset: int = 0
    damage_term: int = 0
    damage_index: int = 0


def scan_segment(
    data: bytes, first_index: int, last_term: int = 0, start: int = SEGMENT_HEADER_SIZE
) -> ScanResult:
    """Read the groups in `data` (a whole segment, its header included) from byte `start` on.

    `first_index` is the index that the first batch must have, `last_term` the term of the entry
    before it. Never raises for what the bytes hold: that is what the verdict says.
    """
    marks = array("Q"), array("Q")
    result = ScanResult(first_index, first_index, last_term, start, [], [], *marks, [])
    _scan_good(data, result)
    judgement = judge(data, result.end_offset, result.next_index, result.last_term)
    result.verdict, result.reason = judgement.verdict, judgement.reason
    result.trouble_offset = result.end_offset
    result.damage_term, result.damage_index = judgement.damage_term, judgement.damage_index
    return result


def batches_between(data: bytes, start: int, end: int) -> list[Batch]:
    """The batches in `data[start:end]`, which a scan has found good: nothing is checked again.

    `start` and `end`: places where a batch or the marker in front of one may stand.
    """
    found: list[Batch] = []
    unpack = batches.HEADER.unpack_from
    while start < end:
        start = skip_marker(data, start)
        _, _, kind, _, first_index, term, count, length, _ = unpack(data, start)
        stop = start + length + batches.OVERHEAD
        found.append(Batch(first_index, term, kind, count, data[start:stop]))
        start = stop
    return found


def _scan_good(data: bytes, result: ScanResult) -> None:
    """Advance `result` over the good batches. The hot loop of recovery: one turn per batch."""
    unpack = batches.HEADER.unpack_from
    header_size, magic_wanted, version_wanted = batches.HEADER_SIZE, batches.MAGIC, batches.VERSION
    configuration, kinds, intact = int(BatchKind.CONFIGURATION), KINDS, INTACT
    crc32c, unknown_flags = google_crc32c.value, ~batches.ZERO_RUN
    max_entries = batches.MAX_ENTRIES
    # A batch's place is where the one before ends: at `pos`, or at the marker in front of it.
    place = pos = result.end_offset
    index, last_term = result.next_index, result.last_term
    suspects: list[tuple[int, int]] = []
    size = len(data)
    limit = size - batches.OVERHEAD
    next_mark = pos
    while pos <= limit:
        magic, version, kind, flags, first, term, count, length, crc = unpack(data, pos)
        body = pos + header_size
        tail = body + length
        end = tail + header_size
        if magic != magic_wanted and pos == place:
            if not data.startswith(encode_sync_marker(index - 1, pos), pos):
                suspects.append((pos, index))
            pos += SYNC_MARKER_SIZE
            continue
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
            or flags & unknown_flags
            or kind not in kinds
            or not term
            or not count
            or count > max_entries
            or length > batches.MAX_PAYLOAD_BYTES
        ):
            break
        if kind == configuration:
            decoded = decode_configuration(data[body:tail])
            if decoded is None:
                break
            result.configurations.append((first, decoded))
        if term != last_term:
            result.term_runs.append((first, term))
            last_term = term
        if place >= next_mark:
            result.mark_indexes.append(first)
            result.mark_offsets.append(place)
            next_mark = place + MARK_SPACING_BYTES
        place = pos = end
        index += count
    result.end_offset, result.next_index, result.last_term = place, index, last_term
    # The last suspect may be where the log ends.
    result.bad_markers = [
        at for at, first in suspects if at < place and is_marker_damaged(data, at, first)
    ]
