"""Where in which segment a batch stands: a sparse index, about 16 bytes per 64 KiB of log.

The log's writer thread changes it, readers in other threads look things up.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_right

import msgspec

from raft_agent.storage.format import SEGMENT_HEADER_SIZE
from raft_agent.storage.scan import MARK_SPACING_BYTES


class Segment(msgspec.Struct):
    """One segment on disk: the entries `first_index` … `next_index` - 1, up to byte `end_offset`.

    `mark_indexes` and `mark_offsets` as in ScanResult. A batch's place is where the one before
    ends, so that a sync marker in front of it is found, read over and cut together with it.
    """

    path: str
    first_index: int
    next_index: int
    end_offset: int
    mark_indexes: array[int]
    mark_offsets: array[int]

    def note(self, first_index: int, next_index: int, size_bytes: int) -> None:
        """A batch was written behind the last one."""
        marks = self.mark_offsets
        if not marks or self.end_offset - marks[-1] >= MARK_SPACING_BYTES:
            self.mark_indexes.append(first_index)
            marks.append(self.end_offset)
        self.end_offset += size_bytes
        self.next_index = next_index

    def mark_before(self, index: int) -> tuple[int, int]:
        """(first index, offset) of a batch at or before the one that holds `index`."""
        position = bisect_right(self.mark_indexes, index) - 1
        return self.mark_indexes[position], self.mark_offsets[position]


class Place(msgspec.Struct, frozen=True):
    """Where to start reading: a batch at or before the one wanted starts with `first_index` and
    stands at `offset`; the segment's batches go on to `end_offset` and `next_index` - 1.
    """

    path: str
    first_index: int
    offset: int
    end_offset: int
    next_index: int


class LogIndex:
    """All segments of the log. Thread-safe.

    `base_index`: the entry before the first one, while there is no segment.
    """

    def __init__(self, segments: list[Segment], base_index: int = 0) -> None:
        self._lock = threading.Lock()
        self._segments = segments
        self._base_index = base_index
        self._cuts = 0

    @property
    def next_index(self) -> int:
        """The index behind the log's last entry."""
        with self._lock:
            return self._segments[-1].next_index if self._segments else self._base_index + 1

    @property
    def first_index(self) -> int:
        """The log's first entry; `next_index` while there is no segment."""
        with self._lock:
            return self._segments[0].first_index if self._segments else self._base_index + 1

    @property
    def cuts(self) -> int:
        """How often entries have been taken out of the log since it was opened. When this has
        changed after reading from a Place, what was read may be of no log.
        """
        with self._lock:
            return self._cuts

    @property
    def last(self) -> Segment | None:
        """The segment that is written to; only for the writer thread."""
        return self._segments[-1] if self._segments else None

    def add(self, segment: Segment) -> None:
        """A new last segment. It takes the place of an empty one with the same first index."""
        with self._lock:
            if self._segments and self._segments[-1].first_index == segment.first_index:
                self._segments.pop()
            self._segments.append(segment)

    def note(self, batches: list[tuple[int, int, int]]) -> None:
        """(first index, next index, bytes) of batches written behind the last segment's last."""
        with self._lock:
            segment = self._segments[-1]
            for first_index, next_index, size_bytes in batches:
                segment.note(first_index, next_index, size_bytes)

    def find(self, index: int) -> Place | None:
        """Where to look for the entry `index`; None when it is not in the log."""
        with self._lock:
            position = self._position(index)
            if position is None:
                return None
            segment = self._segments[position]
            first_index, offset = segment.mark_before(index)
            return Place(segment.path, first_index, offset, segment.end_offset, segment.next_index)

    def truncate(self, index: int, offset: int) -> tuple[list[Segment], Segment | None]:
        """Forget `index` and all behind; the batch that starts with it stands at `offset`.

        The segments that are gone, in order, and the one to cut at `offset`, if any: a segment that
        would be left empty is gone too, but the first one stays. From now on nobody looks there,
        so the files may be changed.
        """
        with self._lock:
            position = self._position(index)
            if position is None:
                raise ValueError(f"index {index} is not in the log")
            self._cuts += 1
            if offset == SEGMENT_HEADER_SIZE and position > 0:
                gone = self._segments[position:]
                del self._segments[position:]
                return gone, None
            segment = self._segments[position]
            gone = self._segments[position + 1 :]
            del self._segments[position + 1 :]
            while segment.mark_offsets and segment.mark_offsets[-1] >= offset:
                segment.mark_offsets.pop()
                segment.mark_indexes.pop()
            segment.end_offset = offset
            segment.next_index = index
            return gone, segment

    def compact(self, upto_index: int) -> list[Segment]:
        """Forget the segments that hold no entry behind `upto_index`, but for the last segment:
        those that are gone, in order. From now on nobody looks there.
        """
        with self._lock:
            count = 0
            while count + 1 < len(self._segments) and (
                self._segments[count].next_index <= upto_index + 1
            ):
                count += 1
            self._cuts += count > 0
            gone = self._segments[:count]
            del self._segments[:count]
            return gone

    def reset(self, base_index: int) -> list[Segment]:
        """Forget all segments, which are returned in order; the next entry is `base_index` + 1."""
        with self._lock:
            self._cuts += 1
            self._base_index = base_index
            gone, self._segments = self._segments, []
            return gone

    def _position(self, index: int) -> int | None:
        position = bisect_right(self._segments, index, key=lambda segment: segment.first_index) - 1
        if position < 0 or index >= self._segments[position].next_index:
            return None
        return position
