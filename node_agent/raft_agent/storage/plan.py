"""From the segments of a log to what recovery has to do. Pure: bytes in, a plan out.

A simulated disk can use it as it is::

    plan = plan_recovery([(segment_name(1), data)], decode_vote(vote_bytes).vote)
    first persist plan.vote, then plan.last_segment, then plan.delete, then plan.cut
    tail = batches_between(data, SEGMENT_HEADER_SIZE, plan.segments[-1].scan.end_offset)
    image = plan.log_image(tuple(tail))
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

import msgspec

from raft_agent.consensus.batch import Batch
from raft_agent.consensus.types import Configuration, LogImage, SnapshotMeta, Vote
from raft_agent.storage.errors import OTHER_VERSION, REBUILD, START_ANEW, StorageError
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
    """What the log is and what has to be done to the files, in the order vote, last_segment,
    delete, cut; each step on the medium before the next, so that a crash in between leads to the
    same plan again.

    `vote` holds the vote floor as it must be from now on, `last_segment` what the file of that name
    must say (None: there is none). `delete`: last segment first. `snapshot`: what the state machine
    begins with; `base_index`, `base_term` and the rest as in LogImage. `cluster_id` is "" when
    there is neither a segment nor a snapshot.
    """

    vote: Vote
    cluster_id: str = ""
    snapshot: SnapshotMeta | None = None
    last_segment: SegmentHeader | None = None
    base_index: int = 0
    base_term: int = 0
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
            self.base_index,
            self.base_term,
            self.last_index,
            tuple(self.term_runs),
            tuple(self.configurations),
            tuple(batch for batch in tail if batch.first_index > self.base_index),
        )


def plan_recovery(
    segments: Iterable[tuple[str, bytes]],
    vote: Vote,
    directory: str = "log",
    *,
    last_segment: SegmentHeader | None = None,
    snapshots: Sequence[SnapshotMeta] = (),
    damaged_snapshots: Sequence[StorageError] = (),
) -> RecoveryPlan:
    """Judge the log that consists of these files: (name, content), sorted by name.

    One at a time is taken from `segments`, so a generator may read them lazily. `vote` is what the
    vote file says, `directory` the place to name in texts; the log must have come to the segment
    `last_segment` at least. `snapshots`: the intact ones, the newest first; `damaged_snapshots`:
    what is wrong with others. The newest intact one is used. A log that does not hold its last
    entry is dropped: it ends before, or differs there and so was not the cluster's. Raises
    StorageError when log and snapshots can't be used as they are.
    """
    planner = _Planner(vote, directory, last_segment, snapshots, damaged_snapshots)
    for name, data in segments:
        planner.add(name, data)
    return planner.finish()


class _Planner:
    def __init__(
        self,
        vote: Vote,
        directory: str,
        last_segment: SegmentHeader | None,
        snapshots: Sequence[SnapshotMeta],
        damaged_snapshots: Sequence[StorageError],
    ) -> None:
        self._directory = directory
        self._last_segment = last_segment
        self._snapshots = snapshots
        self._damaged_snapshots = damaged_snapshots
        self._plan = RecoveryPlan(vote, snapshot=snapshots[0] if snapshots else None)
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
        if not plan.segments:
            self._check_start(name, header.first_index)
        elif header.first_index != self._next_index:
            raise self._gap(name, header.first_index)
        scan = scan_segment(data, header.first_index, plan.last_term)
        if scan.verdict is Verdict.UNKNOWN:
            path = f"{self._directory}/{name}"
            raise StorageError(scan.reason, path, scan.trouble_offset, OTHER_VERSION)
        if scan.verdict is Verdict.BROKEN:
            raise self._damage(name, f"damaged: {scan.reason}", scan.trouble_offset)
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
        if plan.snapshot is not None:
            self._continue_from(plan.snapshot)
        self._check_base()
        if plan.segments:
            first_index = plan.segments[-1].scan.first_index
            plan.last_segment = SegmentHeader(first_index, plan.cluster_id)
        elif plan.base_index:
            first_index = plan.base_index + 1
            plan.last_segment = SegmentHeader(first_index, plan.cluster_id, is_to_come=True)
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
        reached = plan.segments and plan.segments[-1].name >= name
        if not reached and not wanted.is_to_come:
            raise self._refusal(name, "is missing or empty, but the log had come to it")
        if plan.segments and plan.cluster_id != wanted.cluster_id:
            raise self._foreign(plan.segments[0].name, plan.cluster_id, wanted.cluster_id)

    def _check_base(self) -> None:
        """Raise StorageError when a snapshot is needed that is not there."""
        plan, wanted = self._plan, self._last_segment
        is_behind = wanted is not None and wanted.is_to_come
        if is_behind and wanted is not None and plan.last_index < wanted.first_index - 1:
            what = (
                f"the snapshot of index {wanted.first_index - 1}, where the log begins, is missing"
            )
            raise self._unusable(segment_name(wanted.first_index), what)
        if not plan.segments and plan.snapshot is None and self._damaged_snapshots:
            raise self._unusable("", "there is neither a log nor another snapshot")
        for error in self._damaged_snapshots:
            at = f", byte {error.offset}" if error.offset >= 0 else ""
            use = "the log" if plan.snapshot is None else f"that of index {plan.snapshot.index}"
            self._warn(f"{error.path}{at}: {error.what}; {use} is used instead. Check the disk")

    def _check_start(self, name: str, first_index: int) -> None:
        """Raise StorageError when the log's first segment starts behind what is known before."""
        newest = self._plan.snapshot
        known = newest.index if newest is not None else 0
        if first_index > known + 1:
            self._next_index = known + 1
            if self._damaged_snapshots:
                raise self._unusable(name, f"the log begins with index {first_index} only")
            raise self._gap(name, first_index)
        self._next_index = first_index

    def _continue_from(self, newest: SnapshotMeta) -> None:
        """Let the log begin behind a snapshot: the oldest one from which it goes on, so that the
        core knows as much of it as there may be. One from index 1 on is whole without any.
        """
        plan = self._plan
        cluster_id = newest.configuration.cluster_id
        known = self._last_segment.cluster_id if self._last_segment is not None else cluster_id
        if cluster_id != (plan.cluster_id if plan.segments else known):
            name = plan.segments[0].name if plan.segments else ""
            raise self._foreign(name, plan.cluster_id or known, cluster_id)
        plan.cluster_id = cluster_id
        if not self._holds(newest):
            plan.delete += [segment.name for segment in reversed(plan.segments)]
            plan.segments, plan.cut, plan.term_runs, plan.configurations = [], None, [], []
            plan.last_index = newest.index
            self._set_base(newest)
        elif plan.segments[0].scan.first_index > 1:
            self._set_base([snapshot for snapshot in self._snapshots if self._holds(snapshot)][-1])

    def _holds(self, snapshot: SnapshotMeta) -> bool:
        """Whether the log goes on from this snapshot. The term of the entry before the log's first
        one is not known: both were committed, so it is the snapshot's.
        """
        plan = self._plan
        if not plan.segments:
            return False
        before = plan.segments[0].scan.first_index - 1
        if not before <= snapshot.index <= plan.last_index:
            return False
        return snapshot.index == before or self._term_at(snapshot.index) == snapshot.term

    def _term_at(self, index: int) -> int:
        runs = self._plan.term_runs
        return runs[bisect_right(runs, index, key=lambda run: run[0]) - 1][1]

    def _set_base(self, snapshot: SnapshotMeta) -> None:
        plan, first = self._plan, snapshot.index + 1
        plan.base_index, plan.base_term = snapshot.index, snapshot.term
        in_force = (snapshot.configuration_index, snapshot.configuration)
        plan.configurations = [
            in_force,
            *(item for item in plan.configurations if item[0] >= first),
        ]
        if plan.last_index < first:
            plan.term_runs, plan.last_term = [], snapshot.term
            return
        later = [run for run in plan.term_runs if run[0] > first]
        plan.term_runs = [(first, self._term_at(first)), *later]

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
        raise self._damage(self._trouble.name, what, scan.trouble_offset)

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

    def _unusable(self, name: str, why: str) -> StorageError:
        """What to say when a snapshot that would be needed is damaged, or not there."""
        if not self._damaged_snapshots:
            return self._refusal(name, why)
        error = self._damaged_snapshots[0]
        return StorageError(f"{error.what}; {why}", error.path, error.offset, error.advice)

    def _foreign(self, name: str, cluster_id: str, other_id: str) -> StorageError:
        what = f"the log belongs to cluster {cluster_id!r}, the rest of the data directory to "
        return self._refusal(name, f"{what}{other_id!r}")

    def _refusal(self, name: str, what: str, offset: int = -1) -> StorageError:
        return StorageError(what, f"{self._directory}/{name}", offset, START_ANEW)

    def _damage(self, name: str, what: str, offset: int) -> StorageError:
        return StorageError(what, f"{self._directory}/{name}", offset, REBUILD)

    def _warn(self, text: str) -> None:
        self._plan.warnings.append(text)
