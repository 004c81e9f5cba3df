"""From the segments of a log to what recovery has to do. Pure: bytes in, a plan out.

A simulated disk can use it as it is::

    plan = plan_recovery([(segment_name(1), data)], decode_vote(vote_bytes).vote)
    first persist plan.vote, then plan.delete, then plan.cut
    tail = batches_between(data, SEGMENT_HEADER_SIZE, plan.segments[-1].scan.end_offset)
    image = plan.log_image(tuple(tail))
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from raft_agent.consensus.batch import Batch
from raft_agent.consensus.types import Configuration, LogImage, Vote
from raft_agent.storage.errors import START_ANEW, StorageError
from raft_agent.storage.format import (
    SEGMENT_HEADER_SIZE,
    FormatError,
    SegmentHeader,
    decode_segment_header,
    parse_segment_name,
    segment_name,
)
from raft_agent.storage.judge import Verdict, is_zero
from raft_agent.storage.scan import ScanResult, scan_segment


class PlannedSegment(msgspec.Struct):
    """A segment that stays. `size_bytes` is the file's, zeros at its end included."""

    name: str
    size_bytes: int
    scan: ScanResult


class Cut(msgspec.Struct, frozen=True):
    """Cut this segment's file to `offset` bytes."""

    name: str
    offset: int


class RecoveryPlan(msgspec.Struct):
    """What the log is and what has to be done to the files, in the order vote, delete, cut; each
    step on the medium before the next, so that a crash in between leads to the same plan again.

    `vote` holds the vote floor as it must be from now on. `delete`: last segment first.
    `cluster_id` is "" when there is no segment, `last_term` 0 for an empty log.
    """

    vote: Vote
    cluster_id: str = ""
    last_index: int = 0
    last_term: int = 0
    term_runs: list[tuple[int, int]] = []
    configurations: list[tuple[int, Configuration]] = []
    segments: list[PlannedSegment] = []
    cut: Cut | None = None
    delete: list[str] = []
    warnings: list[str] = []

    def log_image(self, tail: tuple[Batch, ...]) -> LogImage:
        """What the core wants to know; `tail` are the last batches, up to `last_index`."""
        return LogImage(
            last_index=self.last_index,
            term_runs=tuple(self.term_runs),
            configurations=tuple(self.configurations),
            tail=tail,
        )


def plan_recovery(
    segments: Iterable[tuple[str, bytes]],
    vote: Vote,
    directory: str = "log",
    last_segment: SegmentHeader | None = None,
) -> RecoveryPlan:
    """Judge the log that consists of these files: (name, content), sorted by name.

    One at a time is taken from `segments`, so a generator may read them lazily. `vote` is what the
    vote file says, `directory` the place to name in texts; the log must have come to the segment
    `last_segment` at least. Raises StorageError when the log can't be used as it is.
    """
    planner = _Planner(vote, directory, last_segment)
    for name, data in segments:
        planner.add(name, data)
    return planner.finish()


class _Planner:
    def __init__(self, vote: Vote, directory: str, last_segment: SegmentHeader | None) -> None:
        self._directory = directory
        self._last_segment = last_segment
        self._plan = RecoveryPlan(vote)
        self._next_index = 1
        self._unused: list[str] = []
        self._trouble: PlannedSegment | None = None

    def add(self, name: str, data: bytes) -> None:
        header = self._read_header(name, data)
        if header is None:
            self._unused.append(name)
            return
        if self._unused:
            what = f"segment was never used, but {name} follows"
            raise self._refusal(self._unused[0], what)
        plan = self._plan
        if plan.segments and header.cluster_id != plan.cluster_id:
            what = f"belongs to cluster {header.cluster_id!r}, the log to {plan.cluster_id!r}"
            raise self._refusal(name, what)
        if self._trouble is not None and self._ends_trouble(name, header, data):
            return
        if header.first_index != self._next_index:
            raise self._gap(name, header.first_index)
        scan = scan_segment(data, header.first_index, plan.last_term)
        if scan.verdict is Verdict.BROKEN:
            raise self._refusal(name, f"damaged: {scan.reason}", scan.trouble_offset)
        if plan.segments and scan.verdict is Verdict.CLEAN and not scan.mark_indexes:
            # A segment gets its name only once its first batch is on the medium.
            raise self._refusal(name, "holds no entry: what it held is gone", SEGMENT_HEADER_SIZE)
        for offset in scan.bad_markers:
            self._warn(
                f"{self._directory}/{name}, byte {offset}: a sync marker is damaged; no entry is "
                "missing. Check the disk"
            )
        segment = PlannedSegment(name, len(data), scan)
        if scan.verdict is not Verdict.CLEAN:
            self._trouble = segment
        plan.cluster_id = header.cluster_id
        plan.segments.append(segment)
        plan.term_runs += scan.term_runs
        plan.configurations += scan.configurations
        plan.last_term = scan.last_term
        plan.last_index = scan.next_index - 1
        self._next_index = scan.next_index

    def finish(self) -> RecoveryPlan:
        plan = self._plan
        self._check_end()
        plan.delete = self._unused[::-1]
        if self._trouble is not None:
            self._end_at(self._trouble)
        floor = (plan.vote.floor_term, plan.vote.floor_index)
        if floor != (0, 0) and (plan.last_term, plan.last_index) >= floor:
            plan.vote = Vote(plan.vote.term, plan.vote.voted_for)
        return plan

    def _check_end(self) -> None:
        """Raise StorageError when the log had more segments once."""
        plan, wanted = self._plan, self._last_segment
        if wanted is None:
            return
        name = segment_name(wanted.first_index)
        if not plan.segments or plan.segments[-1].name < name:
            raise self._refusal(name, "is missing or empty, but the log had come to it")
        if plan.cluster_id != wanted.cluster_id:
            what = (
                f"the log belongs to cluster {plan.cluster_id!r}, the rest of the data directory "
                f"to {wanted.cluster_id!r}"
            )
            raise self._refusal(plan.segments[0].name, what)

    def _read_header(self, name: str, data: bytes) -> SegmentHeader | None:
        """None for a segment that was prepared but never used."""
        try:
            header = decode_segment_header(data)
        except FormatError as error:
            if is_zero(data):
                return None
            raise self._refusal(name, f"is no segment of a log: {error}", 0) from None
        if header.first_index != parse_segment_name(name):
            what = f"its header says that it should be called {segment_name(header.first_index)}"
            raise self._refusal(name, what)
        if header.intact_copies < 2:
            self._warn(f"{self._directory}/{name}: one of the two copies of its header is damaged")
        return header

    def _ends_trouble(self, name: str, header: SegmentHeader, data: bytes) -> bool:
        """A segment follows one whose end is bad. Raises unless that explains itself.

        True: this segment is unused and may go. False: what looked bad was never part of the log.
        """
        assert self._trouble is not None  # noqa: S101 - for the type checker
        scan = self._trouble.scan
        if scan.verdict is Verdict.TORN and header.first_index == scan.next_index:
            # The log goes on here without a gap, so those bytes are in unused space.
            self._warn(
                f"{self._directory}/{self._trouble.name}: unused space behind byte "
                f"{scan.end_offset} is not zero; no entry is missing"
            )
            self._trouble = None
            return False
        follows_damage = (
            scan.verdict is Verdict.DAMAGED and header.first_index == scan.damage_index + 1
        )
        if follows_damage and is_zero(data, SEGMENT_HEADER_SIZE):
            self._unused.append(name)
            return True
        what = f"damaged in the middle of the log ({name} follows): {scan.reason}"
        raise self._refusal(self._trouble.name, what, scan.trouble_offset)

    def _end_at(self, segment: PlannedSegment) -> None:
        """The log ends in front of a torn or damaged batch."""
        plan, scan = self._plan, segment.scan
        where = f"{self._directory}/{segment.name}, byte {scan.trouble_offset}: {scan.reason}"
        if scan.verdict is Verdict.TORN:
            self._warn(
                f"{where}; cut there, the log ends with index {plan.last_index}. Nobody was told "
                "that more was on disk"
            )
        else:
            damaged = (scan.damage_term, scan.damage_index)
            floor = max((plan.vote.floor_term, plan.vote.floor_index), damaged)
            plan.vote = Vote(plan.vote.term, plan.vote.voted_for, *floor)
            self._warn(
                f"{where}. It may have been acknowledged: this node does not stand for election "
                f"and votes as if its log ended at term {floor[0]}, index {floor[1]}, until a "
                "leader has filled it again. Check the disk"
            )
        if scan.end_offset == SEGMENT_HEADER_SIZE and len(plan.segments) > 1:
            plan.segments.pop()
            plan.delete.append(segment.name)
        else:
            plan.cut = Cut(segment.name, scan.end_offset)

    def _gap(self, name: str, first_index: int) -> StorageError:
        if first_index < self._next_index:
            what = f"starts with index {first_index}, but the log has {self._next_index - 1} before"
            return self._refusal(name, what)
        what = f"entries {self._next_index} to {first_index - 1} in front of it are missing"
        return self._refusal(name, f"{what}: a segment is gone or cut short")

    def _refusal(self, name: str, what: str, offset: int = -1) -> StorageError:
        return StorageError(what, f"{self._directory}/{name}", offset, START_ANEW)

    def _warn(self, text: str) -> None:
        self._plan.warnings.append(text)
