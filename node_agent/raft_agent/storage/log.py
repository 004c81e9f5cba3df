"""The log on disk, as its writer thread sees it: append, truncate, roll over to new segments."""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Sequence
from pathlib import Path

from raft_agent import platform
from raft_agent.consensus.batch import Batch
from raft_agent.histogram import Histogram
from raft_agent.storage.files import replace_file, sync_directory, write_all
from raft_agent.storage.format import (
    BLOCK_BYTES,
    SEGMENT_HEADER_SIZE,
    SYNC_MARKER_SIZE,
    encode_segment_header,
    group_buffers,
    segment_name,
)
from raft_agent.storage.index import LogIndex, Segment
from raft_agent.storage.prepare import Preparer, has_room
from raft_agent.storage.reader import find_boundary

# The first segment is small, so that a first start does not wait for 16 MiB of zeros (15 ms on an
# NVMe disk, seconds on an SD card); each one after it is larger, up to the size asked for.
_FIRST_SEGMENT_BYTES = 1 << 20
_GROWTH = 4


class Log:
    """Every method returns once its work is on the medium. Only the writer thread may call them;
    `index` is for readers too.

    `base_term`: of the entry before those of `term_runs`, 0 for a log that begins with index 1.
    `fd` and `size_bytes`: the last segment, when it may be filled up; `fd` -1 when the next batch
    has to start a new one. After an exception the log is in an unknown state: open it anew.
    `fsyncs`: how long the medium took for each group of batches.
    """

    def __init__(
        self,
        directory: Path,
        index: LogIndex,
        last_segment_path: Path,
        *,
        cluster_id: str,
        base_term: int,
        term_runs: Sequence[tuple[int, int]],
        segment_bytes: int,
        fd: int = -1,
        size_bytes: int = 0,
    ) -> None:
        self.index = index
        self.fsyncs = Histogram()
        self._directory = directory
        self._last_segment_path = last_segment_path
        self._cluster_id = cluster_id
        self._base_term = base_term
        self._term_runs = list(term_runs)
        self._segment_bytes = segment_bytes
        self._fd = fd
        self._size_bytes = size_bytes
        self._preparer = Preparer(directory)
        self._prepare_in_time()

    @property
    def last(self) -> tuple[int, int]:
        """(term, index) of the last entry, or of the one before the first; (0, 0) for none."""
        last_index = self.index.next_index - 1
        return (self._term_runs[-1][1] if self._term_runs else self._base_term, last_index)

    @property
    def cluster_id(self) -> str:
        """ "" while the log belongs to no cluster."""
        return self._cluster_id

    def has_room(self) -> bool:
        """Whether the disk has room for the next segment. May be called in any thread."""
        return has_room(self._directory, self._next_segment_bytes())

    def found_cluster(self, cluster_id: str) -> None:
        """The segments to come carry this id. Raises ValueError when the log has another one."""
        if self._cluster_id and cluster_id != self._cluster_id:
            raise ValueError(
                f"the log belongs to cluster {self._cluster_id!r} and can't change to "
                f"{cluster_id!r}"
            )
        self._cluster_id = cluster_id

    def append(self, batches: Sequence[Batch]) -> None:
        """Write the batches behind the last one: as one group, with one pwritev and one fdatasync,
        while they fit into the segment; what does not fit is a group of its own, begun when the one
        before is on the medium. Raises OSError, and ValueError when they don't follow the log.
        """
        self._check(batches)
        start = 0
        while start < len(batches):
            last = self.index.last
            room = self._size_bytes - last.end_offset if last is not None and self._fd >= 0 else 0
            stop = _fitting(batches, start, room - SYNC_MARKER_SIZE)
            if stop > start:
                self._fill(batches[start:stop])
            else:
                stop = self._roll_over(batches, start)
            start = stop
        self._note_terms(batches)
        self._prepare_in_time()

    def truncate(self, from_index: int) -> None:
        """Cut the log so that it ends before `from_index`, where a batch must start.

        After a crash at any point the log is the old one, or a beginning of it that holds at least
        what should stay. The cut file is not filled again: what is behind its end can't be mistaken
        for batches, and the next batch starts a new segment. Raises OSError, ValueError,
        StorageError.
        """
        if from_index == self.index.next_index:
            return
        _, offset = find_boundary(self.index, from_index)
        gone, cut = self.index.truncate(from_index, offset)
        self._close_segment()
        last = self.index.last
        if gone and last is not None:
            self._note_last_segment(last.first_index)
        for segment in reversed(gone):
            Path(segment.path).unlink()
            sync_directory(self._directory)
        if cut is not None:
            cut_file(Path(cut.path), offset)
        while self._term_runs and self._term_runs[-1][0] >= from_index:
            self._term_runs.pop()
        self._prepare_in_time()

    def compact(self, upto_index: int) -> None:
        """Delete the segments that hold no entry behind `upto_index`, but for the last one.

        Oldest first, so that a crash at any point leaves a log without a gap. Raises OSError.
        """
        for segment in self.index.compact(upto_index):
            Path(segment.path).unlink()
            sync_directory(self._directory)

    def reset(self, index: int, term: int) -> None:
        """Forget all entries; the next one is `index` + 1, behind the snapshot of (`index`,
        `term`), which is durable.

        After a crash at any point the log is either this empty one, or a beginning of the old one
        that recovery drops in favour of the snapshot, unless the snapshot's last entry is in it.
        Raises OSError.
        """
        self._close_segment()
        gone = self.index.reset(index)
        self._note_last_segment(index + 1, is_to_come=True)
        for segment in reversed(gone):
            Path(segment.path).unlink()
            sync_directory(self._directory)
        self._base_term = term
        self._term_runs = []
        self._prepare_in_time()

    def close(self) -> None:
        """Close the files; nothing is written any more."""
        self._close_segment()
        self._preparer.close()

    def _check(self, batches: Sequence[Batch]) -> None:
        if batches and not self._cluster_id:
            raise ValueError("an entry came before the node belongs to a cluster")
        term, index = self.last
        for batch in batches:
            if batch.first_index != index + 1 or batch.term < term:
                raise ValueError(
                    f"a batch of index {batch.first_index} and term {batch.term} can't follow "
                    f"index {index} and term {term}"
                )
            term, index = batch.term, batch.last_index

    def _fill(self, batches: Sequence[Batch]) -> None:
        last = self.index.last
        assert last is not None  # noqa: S101 - for the type checker
        self._write(group_buffers(batches, last.end_offset), last.end_offset)
        self._sync()
        self._note(batches)

    def _roll_over(self, batches: Sequence[Batch], start: int) -> int:
        """Put `batches[start]` and what fits behind it into a new segment; the first one left over.

        The file gets its name only when header and batches are on the medium, and all batches
        before are by then: a segment in the log always starts with a batch that is there.
        """
        first = batches[start]
        needed = SEGMENT_HEADER_SIZE + SYNC_MARKER_SIZE + len(first.record)
        needed += -needed % BLOCK_BYTES
        prepared = self._preparer.take(needed, self._next_segment_bytes())
        self._close_segment()
        self._fd, self._size_bytes = prepared.fd, prepared.size_bytes
        room = prepared.size_bytes - SEGMENT_HEADER_SIZE - SYNC_MARKER_SIZE
        stop = _fitting(batches, start, room)
        header = encode_segment_header(first.first_index, self._cluster_id)
        group = group_buffers(batches[start:stop], SEGMENT_HEADER_SIZE)
        self._write([header, *group], 0)
        self._sync()
        path = self._directory / segment_name(first.first_index)
        prepared.path.replace(path)
        sync_directory(self._directory)
        self._note_last_segment(first.first_index)
        index, end = first.first_index, SEGMENT_HEADER_SIZE
        self.index.add(Segment(str(path), index, index, end, array("Q"), array("Q")))
        self._note(batches[start:stop])
        return stop

    def _write(self, buffers: list[bytes], offset: int) -> None:
        """With zeros up to the end of the block: before the system writes a part of a block that it
        has not cached, it reads it, and a segment's blocks are not cached when it is new."""
        end = offset + sum(map(len, buffers))
        write_all(self._fd, [*buffers, bytes(-end % BLOCK_BYTES)], offset)

    def _sync(self) -> None:
        began_ns = time.perf_counter_ns()
        platform.sync_data(self._fd)
        self.fsyncs.add((time.perf_counter_ns() - began_ns) // 1000)

    def _note_last_segment(self, first_index: int, *, is_to_come: bool = False) -> None:
        """Once a segment is there it may not be missing; before it goes it may."""
        header = encode_segment_header(first_index, self._cluster_id, is_to_come=is_to_come)
        replace_file(self._last_segment_path, header)

    def _next_segment_bytes(self) -> int:
        return min(self._segment_bytes, max(_FIRST_SEGMENT_BYTES, _GROWTH * self._size_bytes))

    def _note(self, batches: Sequence[Batch]) -> None:
        """The batches are there, as one group. Its marker counts as a part of the first one."""
        sizes = [len(batch.record) for batch in batches]
        sizes[0] += SYNC_MARKER_SIZE
        self.index.note(
            [
                (batch.first_index, batch.last_index + 1, size)
                for batch, size in zip(batches, sizes, strict=True)
            ]
        )

    def _note_terms(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            if not self._term_runs or self._term_runs[-1][1] != batch.term:
                self._term_runs.append((batch.first_index, batch.term))

    def _prepare_in_time(self) -> None:
        """Have the next segment made when the current one is half full."""
        last = self.index.last
        if self._fd < 0 or last is None or last.end_offset * 2 >= self._size_bytes:
            self._preparer.request(self._next_segment_bytes())

    def _close_segment(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def cut_file(path: Path, size_bytes: int) -> None:
    """Cut the file to its first `size_bytes` bytes, durably. Raises OSError."""
    fd = os.open(path, os.O_RDWR)
    try:
        os.ftruncate(fd, size_bytes)
        platform.sync_file(fd)
    finally:
        os.close(fd)


def _fitting(batches: Sequence[Batch], start: int, room_bytes: int) -> int:
    """The first position behind `start` whose batch does not fit into `room_bytes` any more."""
    stop = start
    for batch in batches[start:]:
        room_bytes -= len(batch.record)
        if room_bytes < 0:
            break
        stop += 1
    return stop
