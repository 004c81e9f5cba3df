"""The two threads that write: one for the log, one for term and vote.

They are apart so that a vote does not wait for the log's fsync. Each takes all that is queued at
once and syncs once for it (group commit).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

import msgspec

from raft_agent.consensus.batch import Batch
from raft_agent.consensus.types import (
    AppendLog,
    CompactLog,
    InstallSnapshot,
    SaveVote,
    SnapshotMeta,
    Vote,
)
from raft_agent.storage.datadir import VOTE_NAME
from raft_agent.storage.errors import in_words
from raft_agent.storage.files import replace_file, shortage
from raft_agent.storage.format import encode_vote
from raft_agent.storage.log import Log
from raft_agent.storage.snapshots import SnapshotStore

_Job = TypeVar("_Job")


class StorageFailure(msgspec.Struct, frozen=True):
    """Why nothing is written any more. `shortage`: of what there was too little, empty when of
    nothing; open the store anew once there is enough."""

    reason: str
    shortage: str


class Reporter:
    """Brings what the threads have to say into the event loop.

    The first failure is the last thing said: a write that came after it may have gone to a file
    that misses what failed.
    """

    def __init__(
        self,
        post: Callable[[Callable[[], None]], None],
        on_failed: Callable[[StorageFailure], None],
    ) -> None:
        self._post = post
        self._on_failed = on_failed
        self._lock = threading.Lock()
        self._failed = False

    @property
    def failed(self) -> bool:
        return self._failed

    def done(self, callback: Callable[[], None]) -> None:
        """Call it in the loop, unless something has failed."""
        with self._lock:
            if not self._failed:
                self._post(callback)

    def fail(self, what: str, error: Exception) -> None:
        """Tell of the first failure; later ones are its consequences."""
        with self._lock:
            if not self._failed:
                self._failed = True
                failure = StorageFailure(f"{what}: {in_words(error)}", shortage(error))
                self._post(partial(self._on_failed, failure))


class VoteWriter:
    """Writes the vote file. The vote floor stays in it until `clear_floor`."""

    def __init__(self, data_dir: Path, vote: Vote) -> None:
        self._path = data_dir / VOTE_NAME
        self._vote = vote
        # None stops the thread, True clears the floor.
        self._queue: SimpleQueue[SaveVote | bool | None] = SimpleQueue()

    def save(self, effect: SaveVote) -> None:
        self._queue.put(effect)

    def clear_floor(self) -> None:
        self._queue.put(True)

    def stop(self) -> None:
        """Finish what is queued, then end."""
        self._queue.put(None)

    def run(self, reporter: Reporter, on_persisted: Callable[[int], None]) -> None:
        """The thread."""
        stopping = False
        while not stopping:
            seq = 0
            vote = self._vote
            for job in _drain(self._queue):
                if job is None:
                    stopping = True
                elif isinstance(job, SaveVote):
                    seq = job.seq
                    vote = Vote(job.term, job.voted_for, vote.floor_term, vote.floor_index)
                else:
                    vote = Vote(vote.term, vote.voted_for)
            if reporter.failed:
                continue
            try:
                if seq or vote != self._vote:
                    replace_file(self._path, encode_vote(vote))
                    self._vote = vote
            except Exception as error:
                reporter.fail(f"writing {self._path} failed", error)
                continue
            if seq:
                reporter.done(partial(on_persisted, seq))


_WRITING = "writing the log"
# How often an idle agent looks whether its data directory is still there.
_CHECK_EVERY_S = 5.0

# A text is the id of the cluster that was founded.
_LogJob = AppendLog | CompactLog | InstallSnapshot | str


class LogWriter:
    """Writes the log. Calls `on_floor_reached` when the log's end has come to `floor`, a
    (term, index), and that is on the medium.
    """

    def __init__(
        self,
        log: Log,
        snapshots: SnapshotStore,
        floor: tuple[int, int],
        check: Callable[[], None],
    ) -> None:
        """`check` raises when what is written will not be found again. It is asked after each group
        of jobs, before that is said to be on the medium, and now and then."""
        self._check = check
        self._log = log
        self._snapshots = snapshots
        self._floor = floor
        self._doing = _WRITING
        # None stops the thread.
        self._queue: SimpleQueue[_LogJob | None] = SimpleQueue()

    @property
    def queue_length(self) -> int:
        """How many jobs wait for the thread."""
        return self._queue.qsize()

    def append(self, effect: AppendLog) -> None:
        self._queue.put(effect)

    def compact(self, effect: CompactLog) -> None:
        self._queue.put(effect)

    def install_snapshot(self, effect: InstallSnapshot) -> None:
        self._queue.put(effect)

    def found_cluster(self, cluster_id: str) -> None:
        self._queue.put(cluster_id)

    def stop(self) -> None:
        """Finish what is queued, then end."""
        self._queue.put(None)

    def run(
        self,
        reporter: Reporter,
        on_persisted: Callable[[int], None],
        on_installed: Callable[[int, SnapshotMeta | None], None],
        on_floor_reached: Callable[[], None],
    ) -> None:
        """The thread."""
        stopping = False
        while not stopping:
            jobs = _drain(self._queue, _CHECK_EVERY_S)
            stopping = bool(jobs) and jobs[-1] is None
            if reporter.failed:
                continue
            try:
                seq, installed = self._write(jobs)
                self._doing = "keeping the log"
                self._check()
                self._doing = _WRITING
                if self._floor != (0, 0) and self._log.last >= self._floor:
                    self._floor = (0, 0)
                    on_floor_reached()
            except Exception as error:
                reporter.fail(f"{self._doing} failed", error)
                continue
            if seq:
                reporter.done(partial(on_persisted, seq))
            for index, snapshot in installed:
                reporter.done(partial(on_installed, index, snapshot))

    def _write(
        self, jobs: list[_LogJob | None]
    ) -> tuple[int, list[tuple[int, SnapshotMeta | None]]]:
        """Carry out the jobs; the number of the last AppendLog among them, or 0, and what came of
        the installations.
        """
        seq = 0
        installed: list[tuple[int, SnapshotMeta | None]] = []
        batches: list[Batch] = []
        for job in jobs:
            if isinstance(job, AppendLog):
                if job.truncate_from:
                    self._log.append(batches)
                    batches = []
                    self._log.truncate(job.truncate_from)
                batches.extend(job.batches)
                seq = job.seq
                continue
            self._log.append(batches)
            batches = []
            if isinstance(job, CompactLog):
                self._doing = "compacting the log"
                self._log.compact(job.upto_index)
            elif isinstance(job, InstallSnapshot):
                self._doing = "installing the leader's snapshot"
                installed.append((job.index, self._install(job)))
            elif job is not None:
                self._log.found_cluster(job)
            self._doing = _WRITING
        self._log.append(batches)
        return seq, installed

    def _install(self, effect: InstallSnapshot) -> SnapshotMeta | None:
        snapshot = self._snapshots.install(effect, self._log.cluster_id)
        if snapshot is not None:
            self._log.found_cluster(snapshot.configuration.cluster_id)
            self._log.reset(snapshot.index, snapshot.term)
        return snapshot


def _drain(queue: SimpleQueue[_Job], timeout_s: float | None = None) -> list[_Job]:
    """Wait for an item, then take all that are there; none after `timeout_s`. One consumer only."""
    try:
        items = [queue.get(timeout=timeout_s)]
    except Empty:
        return []
    items.extend(queue.get_nowait() for _ in range(queue.qsize()))
    return items
