"""One node's disk: what is written, what of it is on stable storage, and what a crash leaves.

The log holds the real batch records and the vote file is the real one; what a node finds after a
crash goes through the agent's own recovery. Only between crashes batches are kept as objects,
because scanning bytes at each event would be slow.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from raft_agent.consensus.batch import Batch
from raft_agent.consensus.types import (
    CompactLog,
    InstallSnapshot,
    LogImage,
    SnapshotMeta,
    Vote,
)
from raft_agent.storage.format import group_buffers
from tests.sim import recovery
from tests.sim.clock import Clock
from tests.sim.logfile import LogFile
from tests.sim.options import DiskOptions
from tests.sim.shelf import Shelf, Stored
from tests.sim.tearing import spare_ambiguous, with_holes

Told = Callable[..., None]


@dataclass(frozen=True, slots=True)
class LogWrite:
    """One AppendLog."""

    seq: int
    truncate_from: int
    batches: tuple[Batch, ...]


LogJob: TypeAlias = LogWrite | CompactLog | InstallSnapshot


class Disk:
    """`damaged`: batches that were lost to a flipped bit and are not all there again yet."""

    def __init__(
        self, clock: Clock, rng: random.Random, options: DiskOptions, seen: Counter[str]
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._options = options
        self._seen = seen
        self._recovered: recovery.Recovered | None = None
        self.cluster_id = ""
        self.promised = 1  # the cluster version that the member has promised to know
        self.durable = LogFile()
        self.vote = Vote()
        self.damaged: list[Batch] = []
        self.shelf = Shelf(rng, seen)
        self._group_starts: list[int] = []
        self.slow_until_us = 0
        self.fsync_fails = False
        self.is_full = False
        self._begin()

    def _begin(self) -> None:
        """A new process: what was begun for the one before does not reach it."""
        self.written = self.durable.copy()
        self.cuts = 0
        self.synced_log_seq = 0
        self.synced_vote_seq = 0
        self.has_failed = False
        self._log_queue: deque[LogJob] = deque()
        self._is_busy = False
        self._group: list[LogWrite] = []
        # Snapshots that may or may not have their name when a crash comes, and one that has it
        # while the log in front of it is being forgotten.
        self._publishing: list[Stored] = []
        self._taking_over: Stored | None = None
        self._vote_queue: deque[tuple[int, Vote]] = deque()
        self._vote_group: list[tuple[int, Vote]] = []
        self._boot = object()

    # --- a process's life

    def open(
        self, on_log_synced: Told, on_vote_synced: Told, on_installed: Told, on_failure: Told
    ) -> tuple[Vote, LogImage, SnapshotMeta | None]:
        """What a new process finds. The four are how the disk's thread calls it: with a number that
        is on stable storage, with an InstallSnapshot and what came of it, or with a reason.
        """
        self._begin()
        self._on_installed = on_installed
        self._on_log_synced = on_log_synced
        self._on_vote_synced = on_vote_synced
        self._on_failure = on_failure
        image = self._recovered.log_image(self._rng) if self._recovered else LogImage()
        return self.vote, image, self._recovered.plan.snapshot if self._recovered else None

    def crash(self, *, kill: bool = False, damage: bool = False) -> None:
        """The process ends, and with it what it had not written. `kill`: the machine lives on, and
        so does what was written; otherwise any sectors survive of what no fsync had confirmed.
        `damage`: a bit of the last group turns. Raises StorageError when the agent would not start
        from what is left.
        """
        if self._vote_group and (kill or self._rng.random() < 0.5):
            self.vote = self._vote_group[-1][1]
        elif self._vote_group:
            self._seen["unsynced_vote_lost"] += 1
        remains = self._remains_of_group(kill=kill)
        self._settle_snapshots()
        self._recover(b"" if damage else remains, damage=damage)
        self._begin()

    def _settle_snapshots(self) -> None:
        """A name that was being given is there, or not; so is a log that was being forgotten."""
        self.shelf.crash()
        for stored in self._publishing:
            if self._rng.random() < 0.5:
                self._seen["unsynced_snapshot_survived"] += 1
                self.shelf.publish(stored)
        if self._taking_over is not None:
            self._seen["crash_before_log_was_forgotten"] += 1
            if self._rng.random() < 0.5:
                self._forget_log(self._taking_over.meta)

    def _remains_of_group(self, *, kill: bool) -> bytes:
        """The bytes behind the log that a power failure leaves of the unfinished group. What the
        end of a process leaves is taken over as it is.
        """
        rng = self._rng
        group = self._group
        if not group:
            return b""
        # A cut is on the medium before anything is written over it.
        if group[0].truncate_from and (kill or rng.random() < 0.7):
            self.durable.write(group[0].truncate_from, ())
            self._note_group(group[0].truncate_from)
        elif group[0].truncate_from:
            self._seen["unsynced_cut_lost"] += 1
            return b""
        batches = [batch for write in group for batch in write.batches]
        if batches:
            self._note_group(batches[0].first_index)
        if kill or not batches:
            self.durable.write(0, batches)
            return b""
        self._seen["unsynced_write_lost"] += 1
        start = len(self._file())
        data = b"".join(group_buffers(batches, start))
        length = rng.randint(0, len(data)) if rng.random() < self._options.tear else 0
        left = with_holes(data if rng.random() < 0.5 else data[:length], start, rng)
        if left.rstrip(b"\0") != data[: len(left.rstrip(b"\0"))]:
            self._seen["torn_with_holes"] += 1
        spared = spare_ambiguous(data, left, batches)
        if spared is not left:
            self._seen["ambiguous_tear_spared"] += 1
        return spared

    def _file(self) -> bytearray:
        """The log's file as the storage would have written it, without the space behind."""
        return recovery.log_file(self.durable, self._group_starts, self.cluster_id)

    def _note_group(self, first_index: int) -> None:
        """The log ends before `first_index`, and a group begins there."""
        while self._group_starts and self._group_starts[-1] >= first_index:
            self._group_starts.pop()
        self._group_starts.append(first_index)

    def _recover(self, torn: bytes, *, damage: bool) -> None:
        """Let the agent's own code find out what is left."""
        before = self.durable
        data = self._file()
        if damage and before.batches:
            while self._group_starts[-1] > before.last_index:
                self._group_starts.pop()
            first = max(self._group_starts[-1], before.base_index + 1)
            last_group = before.batches_from(first)
            size = sum(len(batch.record) for batch in last_group)
            bit = len(data) * 8 - 1 - self._rng.randrange(size * 8)
            data[bit // 8] ^= 1 << bit % 8
        if before.base_index and not before.batches:
            # Behind a snapshot a segment gets its name once its first batch is on the medium.
            data, torn = bytearray(), b""
        found = recovery.recover(
            bytes(data) + torn,
            before.base_index + 1,
            self.cluster_id,
            self.vote,
            self.shelf.examine(),
        )
        self.durable = found.log
        self.cluster_id = found.plan.cluster_id or self.cluster_id
        if torn.strip(b"\0") and found.plan.cut is not None:
            self._seen["torn_tail"] += 1
        if found.vote.floor_index > self.vote.floor_index:
            self._seen["damaged_tail"] += 1
        if damage:
            last_index = self.durable.last_index
            self.damaged = [batch for batch in before.batches if batch.first_index > last_index]
        self.vote = found.vote
        self._recovered = found
        self._note_group(self.durable.last_index + 1)

    @property
    def has_later_groups(self) -> bool:
        """Whether the log goes on behind what was written first. A voter that loses that is as good
        as lost itself once the others' logs have lost their beginning."""
        return any(1 < start <= self.durable.last_index for start in self._group_starts)

    @property
    def is_damaged(self) -> bool:
        """Whether entries are lost that may have been acknowledged."""
        floor = (self.vote.floor_term, self.vote.floor_index)
        return bool(self.damaged) or floor > (self.durable.last_term, self.durable.last_index)

    # --- what the process asks for

    def append(self, write: LogWrite) -> None:
        if write.truncate_from:
            self.cuts += 1
        self.written.write(write.truncate_from, write.batches)
        self._queue(write)

    def compact(self, effect: CompactLog) -> None:
        self.written.compact(effect.upto_index)
        self._queue(effect)

    def install(self, effect: InstallSnapshot) -> None:
        self._queue(effect)

    @property
    def forgets_its_log(self) -> bool:
        """Whether a snapshot that was sent is about to stand for the whole log."""
        return self._taking_over is not None

    def took_over(self) -> None:
        """The process knows by now that its log is forgotten."""
        self.written = self.durable.copy()
        self.cuts += 1

    def keep(self, stored: Stored, done: Callable[[Stored | None], None]) -> None:
        """Write a snapshot of this node's own; `done` once it is durable, or failed (None)."""
        self._publishing.append(stored)
        self._clock.after(self.latency_us(), self._kept, self._boot, stored, done)

    def _kept(self, boot: object, stored: Stored, done: Callable[[Stored | None], None]) -> None:
        if boot is not self._boot:
            return
        self._publishing.remove(stored)
        if self.is_full or self.fsync_fails:
            self._seen["snapshot_failed"] += 1
            done(None)
            return
        self.shelf.publish(stored)
        done(stored)

    def _queue(self, job: LogJob) -> None:
        if self.has_failed:
            return
        self._log_queue.append(job)
        if not self._is_busy:
            self._next_job()

    def save_vote(self, seq: int, term: int, voted_for: int) -> None:
        if self.has_failed:
            return
        vote = Vote(term, voted_for, self.vote.floor_term, self.vote.floor_index)
        self._vote_queue.append((seq, vote))
        if not self._vote_group:
            self._write_votes()

    def holds(self, index: int, term: int) -> bool:
        """Whether the entry `index` of `term` is on stable storage, or a snapshot that stands for
        it. A batch that was damaged there counts as long as the node's votes protect it.
        """
        if index <= max(self.durable.base_index, self.shelf.newest_index):
            return True
        batch = self.durable.batch_at(index)
        if batch is not None and batch.term == term:
            return True
        return any(
            damaged.first_index <= index <= damaged.last_index and damaged.term == term
            for damaged in self.damaged
        )

    # --- the disk's thread

    def _next_job(self) -> None:
        self._is_busy = bool(self._log_queue)
        if not self._is_busy:
            return
        if self.is_full:
            self._fail("no space left on device")
            return
        job = self._log_queue.popleft()
        match job:
            case LogWrite():
                self._gather(job)
                done: Callable[[object], None] = self._log_synced
            case CompactLog():
                done = partial(self._compacted, job)
            case InstallSnapshot():
                stored = self.shelf.take_incoming(job)
                is_newer = stored is not None and job.index > self.shelf.newest_index
                self._publishing += [stored] if stored is not None and is_newer else []
                done = partial(self._published, job, stored if is_newer else None)
        self._clock.after(self.latency_us(), done, self._boot)

    def _gather(self, first: LogWrite) -> None:
        """Write what has gathered, then wait for the fsync; a cut begins a group of its own."""
        queue, group = self._log_queue, self._group
        group.append(first)
        while queue:
            following = queue[0]
            if not isinstance(following, LogWrite) or following.truncate_from:
                break
            group.append(following)
            queue.popleft()

    def _compacted(self, effect: CompactLog, boot: object) -> None:
        """Whole segments go, and never the last one: any number of batches."""
        if boot is not self._boot or self.has_failed:
            return
        durable = self.durable
        ends = [batch.last_index for batch in durable.batches[:-1]]
        ends = [end for end in ends if end <= effect.upto_index]
        if ends:
            durable.compact(ends[-1] if self._rng.random() < 0.5 else self._rng.choice(ends))
            self._seen["log_compacted"] += 1
        self._next_job()

    def _published(self, effect: InstallSnapshot, stored: Stored | None, boot: object) -> None:
        if boot is not self._boot or self.has_failed:
            return
        if stored is None:
            self._next_job()
            self._on_installed((effect.index, None))
            return
        if self.fsync_fails:
            self._fail("fsync: input/output error")
            return
        self._publishing.remove(stored)
        self.shelf.publish(stored)
        self._taking_over = stored
        self._clock.after(self.latency_us(), self._forgotten, self._boot)

    def _forgotten(self, boot: object) -> None:
        stored = self._taking_over
        if boot is not self._boot or self.has_failed or stored is None:
            return
        self._taking_over = None
        self._forget_log(stored.meta)
        self._next_job()
        self._on_installed((stored.meta.index, stored))

    def _forget_log(self, meta: SnapshotMeta) -> None:
        in_force = (meta.configuration_index, meta.configuration)
        self.durable = LogFile((), (meta.index, meta.term), in_force)
        self._group_starts = []
        self._forget_floor()

    def _log_synced(self, boot: object) -> None:
        if boot is not self._boot or self.has_failed:
            return
        if self.fsync_fails:
            self._fail("fsync: input/output error")
            return
        group, self._group = self._group, []
        for write in group:
            self.durable.write(write.truncate_from, write.batches)
        batches = [batch for write in group for batch in write.batches]
        if group[0].truncate_from or batches:
            self._note_group(group[0].truncate_from or batches[0].first_index)
        self._forget_floor()
        self.synced_log_seq = group[-1].seq
        self._next_job()
        self._on_log_synced(self.synced_log_seq)

    def _forget_floor(self) -> None:
        if self.damaged and self.durable.last_index >= self.damaged[-1].last_index:
            self._seen["damaged_tail_refilled"] += 1
            self.damaged = []

    def _write_votes(self) -> None:
        self._vote_group = list(self._vote_queue)
        self._vote_queue.clear()
        if self.is_full:
            self._fail("no space left on device")
        else:
            self._clock.after(self.latency_us(), self._vote_synced, self._boot)

    def _vote_synced(self, boot: object) -> None:
        if boot is not self._boot or self.has_failed:
            return
        if self.fsync_fails:
            self._fail("fsync: input/output error")
            return
        group, self._vote_group = self._vote_group, []
        self.synced_vote_seq, self.vote = group[-1]
        if self._vote_queue:
            self._write_votes()
        self._on_vote_synced(self.synced_vote_seq)

    def _fail(self, reason: str) -> None:
        self._seen["disk_full" if self.is_full else "fsync_failed"] += 1
        self.has_failed = True
        # The thread says it a moment later, like everything.
        self._clock.after(self.latency_us(), self._tell_failure, self._boot, reason)

    def _tell_failure(self, boot: object, reason: str) -> None:
        if boot is self._boot:
            self._on_failure(reason)

    def latency_us(self) -> int:
        """How long the next thing takes that the disk is asked for."""
        latency_us = self._options.fsync_us + int(self._rng.random() * self._options.jitter_us)
        if self._clock.now_us < self.slow_until_us:
            latency_us += 20_000 + int(self._rng.random() * 300_000)
        return latency_us
