"""Opening the log: list its files, judge them, carry out the plan."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from raft_agent import platform
from raft_agent.consensus.batch import Batch
from raft_agent.consensus.types import SnapshotMeta, Vote
from raft_agent.storage.datadir import LAST_SEGMENT_NAME, LOG_NAME, load_last_segment
from raft_agent.storage.errors import StorageError
from raft_agent.storage.files import make_directory, read_exactly, replace_file, sync_directory
from raft_agent.storage.format import (
    SEGMENT_HEADER_SIZE,
    encode_segment_header,
    parse_segment_name,
)
from raft_agent.storage.index import LogIndex, Segment
from raft_agent.storage.judge import Verdict
from raft_agent.storage.log import Log, cut_file
from raft_agent.storage.plan import PlannedSegment, RecoveryPlan, plan_recovery
from raft_agent.storage.prepare import TEMPORARY_NAMES
from raft_agent.storage.scan import batches_between


class OpenedLog(msgspec.Struct):
    """`tail`: the last batches, consecutive up to the log's end, within the bytes asked for."""

    log: Log
    plan: RecoveryPlan
    tail: tuple[Batch, ...]


def open_log(
    data_dir: Path,
    vote: Vote,
    snapshots: Sequence[SnapshotMeta] = (),
    damaged_snapshots: Sequence[StorageError] = (),
    *,
    persist_vote: Callable[[Vote], None],
    segment_bytes: int,
    resident_bytes: int,
) -> OpenedLog:
    """Recover the log in `data_dir` and make it ready to be written to.

    `snapshots` and `damaged_snapshots` as for `plan_recovery`. `persist_vote` is called when the
    vote floor changes; it returns once that is on the medium, which is before anything is cut.
    Raises StorageError and OSError.
    """
    directory = data_dir / LOG_NAME
    make_directory(directory, 0o700)
    names = _segment_names(directory)
    if names:
        _settle(directory, names[-1])
    noted = load_last_segment(data_dir)
    contents = _contents(directory, names)
    plan = plan_recovery(
        contents,
        vote,
        str(directory),
        last_segment=noted,
        snapshots=snapshots,
        damaged_snapshots=damaged_snapshots,
    )
    if plan.vote != vote:
        persist_vote(plan.vote)
    last_segment_path = data_dir / LAST_SEGMENT_NAME
    last = plan.last_segment
    if last is not None and last != noted:
        header = encode_segment_header(
            last.first_index, last.cluster_id, is_to_come=last.is_to_come
        )
        replace_file(last_segment_path, header)
    for name in plan.delete:
        (directory / name).unlink()
        sync_directory(directory)
    if plan.cut is not None:
        cut_file(directory / plan.cut.name, plan.cut.offset)
    tail = _load_tail(directory, plan.segments, resident_bytes)
    segments = [_indexed(directory, segment) for segment in plan.segments]
    log = Log(
        directory,
        LogIndex(segments, plan.base_index),
        last_segment_path,
        cluster_id=plan.cluster_id,
        base_term=plan.base_term,
        term_runs=plan.term_runs,
        segment_bytes=segment_bytes,
        fd=_reopen_last(directory, plan),
        size_bytes=plan.segments[-1].size_bytes if plan.segments else 0,
    )
    return OpenedLog(log, plan, tail)


def _segment_names(directory: Path) -> list[str]:
    """The segments' file names, sorted. Removes what was prepared and not used."""
    names: list[str] = []
    for path in directory.iterdir():
        if path.name in TEMPORARY_NAMES:
            path.unlink()
        elif parse_segment_name(path.name) is not None:
            names.append(path.name)
        elif path.name != "lost+found":
            raise StorageError(
                "a foreign file is in the log's directory",
                str(path),
                advice="Nothing but the agent's own files belongs there: move it away",
            )
    return sorted(names)


def _settle(directory: Path, name: str) -> None:
    """Make sure that what is read from the last segment is on the medium, not only in memory.

    A killed agent leaves bytes in the page cache that were never synced, and a failed fsync leaves
    pages there that the medium does not have and never will: sync, then forget what is cached.
    """
    fd = os.open(directory / name, os.O_RDWR)
    try:
        platform.sync_file(fd)
        platform.forget_cached(fd)
    finally:
        os.close(fd)
    sync_directory(directory)


def _contents(directory: Path, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """(name, content) one after the other; the system reads the next one in the meantime."""
    ahead: list[int] = []
    try:
        for position, name in enumerate(names):
            for later in names[position + len(ahead) : position + 2]:
                ahead.append(os.open(directory / later, os.O_RDONLY))
                platform.read_ahead(ahead[-1])
            fd = ahead.pop(0)
            try:
                data = read_exactly(fd, os.fstat(fd).st_size, 0)
            finally:
                os.close(fd)
            yield name, data
    finally:
        for fd in ahead:
            os.close(fd)


def _load_tail(
    directory: Path, segments: list[PlannedSegment], resident_bytes: int
) -> tuple[Batch, ...]:
    pieces: list[list[Batch]] = []
    room = resident_bytes
    for segment in reversed(segments):
        scan = segment.scan
        wanted = scan.end_offset - room
        position = max(bisect_right(scan.mark_offsets, wanted) - 1, 0)
        start = scan.mark_offsets[position] if scan.mark_offsets else scan.end_offset
        fd = os.open(directory / segment.name, os.O_RDONLY)
        try:
            data = read_exactly(fd, scan.end_offset - start, start)
        finally:
            os.close(fd)
        found = batches_between(data, 0, len(data))
        room -= sum(len(batch.record) for batch in found)
        dropped = 0
        while room < 0:
            room += len(found[dropped].record)
            dropped += 1
        pieces.append(found[dropped:])
        if dropped or start > SEGMENT_HEADER_SIZE:
            break
    return tuple(batch for piece in reversed(pieces) for batch in piece)


def _indexed(directory: Path, segment: PlannedSegment) -> Segment:
    scan = segment.scan
    return Segment(
        str(directory / segment.name),
        scan.first_index,
        scan.next_index,
        scan.end_offset,
        scan.mark_indexes,
        scan.mark_offsets,
    )


def _reopen_last(directory: Path, plan: RecoveryPlan) -> int:
    """A descriptor of the last segment when it may be filled up, else -1."""
    if not plan.segments or plan.cut is not None:
        return -1
    last = plan.segments[-1]
    if last.scan.verdict is not Verdict.CLEAN or last.scan.next_index == last.scan.first_index:
        return -1
    return os.open(directory / last.name, os.O_RDWR)
