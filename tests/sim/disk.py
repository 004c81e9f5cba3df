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

from raft_agent.consensus.batch import Batch
from raft_agent.consensus.types import LogImage, Vote
from raft_agent.storage.format import group_buffers
from raft_agent.storage.judge import SECTOR_BYTES
from tests.sim import recovery
from tests.sim.clock import Clock
from tests.sim.logfile import LogFile
from tests.sim.options import DiskOptions

Told = Callable[..., None]


@dataclass(frozen=True, slots=True)
class LogWrite:
    """One AppendLog."""

    seq: int
    truncate_from: int
    batches: tuple[Batch, ...]


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
        self.durable = LogFile()
        self.vote = Vote()
        self.damaged: list[Batch] = []
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
        self._log_queue: deque[LogWrite] = deque()
        self._group: list[LogWrite] = []
        self._vote_queue: deque[tuple[int, Vote]] = deque()
        self._vote_group: list[tuple[int, Vote]] = []
        self._boot = object()

    # --- a process's life

    def open(
        self, on_log_synced: Told, on_vote_synced: Told, on_failure: Told
    ) -> tuple[Vote, LogImage]:
        """What a new process finds. The three are how the disk's thread calls it: with a number
        that is on stable storage, or with a reason.
        """
        self._begin()
        self._on_log_synced = on_log_synced
        self._on_vote_synced = on_vote_synced
        self._on_failure = on_failure
        image = self._recovered.log_image(self._rng) if self._recovered else LogImage()
        return self.vote, image

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
        self._recover(b"" if damage else remains, damage=damage)
        self._begin()

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
        left = self._with_holes(data if rng.random() < 0.5 else data[:length], start)
        return self._spare(data, left, batches)

    def _spare(self, data: bytes, left: bytes, batches: list[Batch]) -> bytes:
        """A batch that misses a single bit is taken for damage, and the tears of one power failure
        must not do that to a majority: such a batch is there in full.
        """
        left = left.ljust(len(data), b"\0")
        end = len(data) - sum(len(batch.record) for batch in batches)
        for batch in batches:
            begin, end = end, end + len(batch.record)
            missing = int.from_bytes(batch.record) ^ int.from_bytes(left[begin:end])
            if missing.bit_count() == 1:
                self._seen["ambiguous_tear_spared"] += 1
                return left[:begin] + batch.record + left[end:]
        return left

    def _with_holes(self, data: bytes, start: int) -> bytes:
        """Sectors of one unfinished write reach the medium in any order."""
        lost = self._rng.choice((0, 0.1, 0.5))
        holed = bytearray(data)
        for sector in range(-(start % SECTOR_BYTES), len(data), SECTOR_BYTES):
            if self._rng.random() < lost:
                begin, end = max(sector, 0), min(sector + SECTOR_BYTES, len(data))
                holed[begin:end] = bytes(end - begin)
        if holed.rstrip(b"\0") != data[: len(holed.rstrip(b"\0"))]:
            self._seen["torn_with_holes"] += 1
        return bytes(holed)

    def _file(self) -> bytearray:
        """The log's file as the storage would have written it, without the space behind."""
        return recovery.log_file(self.durable.batches, self._group_starts, self.cluster_id)

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
            last_group = before.batches_from(self._group_starts[-1])
            size = sum(len(batch.record) for batch in last_group)
            bit = len(data) * 8 - 1 - self._rng.randrange(size * 8)
            data[bit // 8] ^= 1 << bit % 8
        found = recovery.recover(bytes(data) + torn, self.cluster_id, self.vote)
        self.durable = LogFile(found.batches)
        if torn.strip(b"\0") and found.plan.cut is not None:
            self._seen["torn_tail"] += 1
        if found.vote.floor_index > self.vote.floor_index:
            self._seen["damaged_tail"] += 1
        if damage:
            self.damaged = before.batches[len(found.batches) :]
        self.vote = found.vote
        self._recovered = found
        self._note_group(self.durable.last_index + 1)

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
        if self.has_failed:
            return
        self._log_queue.append(write)
        if not self._group:
            self._write_group()

    def save_vote(self, seq: int, term: int, voted_for: int) -> None:
        if self.has_failed:
            return
        vote = Vote(term, voted_for, self.vote.floor_term, self.vote.floor_index)
        self._vote_queue.append((seq, vote))
        if not self._vote_group:
            self._write_votes()

    def holds(self, index: int, term: int) -> bool:
        """Whether the entry `index` of `term` is on stable storage. A batch that was damaged there
        counts as long as the node's votes protect it.
        """
        batch = self.durable.batch_at(index)
        if batch is not None and batch.term == term:
            return True
        return any(
            damaged.first_index <= index <= damaged.last_index and damaged.term == term
            for damaged in self.damaged
        )

    # --- the disk's thread

    def _write_group(self) -> None:
        """Write what has gathered, then wait for the fsync; a cut begins a group of its own."""
        queue, group = self._log_queue, self._group
        group.append(queue.popleft())
        while queue and not queue[0].truncate_from:
            group.append(queue.popleft())
        if self.is_full:
            self._fail("no space left on device")
        else:
            self._clock.after(self.latency_us(), self._log_synced, self._boot)

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
        if self._log_queue:
            self._write_group()
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
