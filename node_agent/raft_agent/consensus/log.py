"""The log as the core sees it: every term, and the batches at its end.

Batches that are applied and on disk may leave memory; the terms of all entries stay, as runs. What
is no longer here is asked for with a `ReadLog` effect. What a snapshot stands for is gone for good:
the log begins behind its base (§7 of the paper).
"""

from __future__ import annotations

from bisect import bisect_right

from raft_agent.consensus.batch import Batch
from raft_agent.consensus.types import LogImage


class RaftLog:
    """The entries behind `base_index` up to `last_index`; the resident batches are the last ones.

    (`base_index`, `base_term`) is the entry before the first one, (0, 0) while nothing was
    compacted. All entries up to the base are committed.
    """

    __slots__ = (
        "_batches",
        "_run_starts",
        "_run_terms",
        "_starts",
        "base_index",
        "base_term",
        "last_index",
        "resident_bytes",
    )

    def __init__(self, image: LogImage) -> None:
        self.base_index = image.base_index
        self.base_term = image.base_term
        self.last_index = image.last_index
        self._run_starts = [start for start, _ in image.term_runs]
        self._run_terms = [term for _, term in image.term_runs]
        self._batches = list(image.tail)
        self._starts = [batch.first_index for batch in self._batches]
        self.resident_bytes = sum(len(batch.record) for batch in self._batches)

    @property
    def last_term(self) -> int:
        return self._run_terms[-1] if self._run_terms else self.base_term

    @property
    def resident_batches(self) -> tuple[Batch, ...]:
        return tuple(self._batches)

    def term_at(self, index: int) -> int:
        """The term of the entry at `index`, or of the base; 0 for index 0 when that is the base.
        Raises IndexError outside the log.
        """
        if index == self.last_index:
            return self.last_term
        if index == self.base_index:
            return self.base_term
        if not self.base_index < index < self.last_index:
            raise IndexError(f"index {index} is not in {self.base_index}..{self.last_index}")
        return self._run_terms[bisect_right(self._run_starts, index) - 1]

    def holds(self, index: int, term: int) -> bool:
        """Whether the entry at `index` is there, or is the base, and is of `term`."""
        return self.base_index <= index <= self.last_index and self.term_at(index) == term

    def last_at_most(self, index: int, term: int) -> int:
        """The last entry at or before `index` whose term is at most `term`. Before the base all
        may be, so it is the one before the base when the base's own term is later, and `index`
        itself when that is there.

        Terms never fall along a log, so that is the latest place where two logs may still agree.
        """
        if index < self.base_index:
            return index
        index = min(index, self.last_index)
        run = bisect_right(self._run_starts, index) - 1
        while run >= 0 and self._run_terms[run] > term:
            index = self._run_starts[run] - 1
            run -= 1
        return index - 1 if run < 0 and self.base_term > term else index

    def append(self, batch: Batch) -> None:
        if batch.first_index != self.last_index + 1 or batch.term < self.last_term:
            raise ValueError(
                f"batch at {batch.first_index} of term {batch.term} can't follow "
                f"index {self.last_index} of term {self.last_term}"
            )
        if not self._run_terms or batch.term != self._run_terms[-1]:
            self._run_starts.append(batch.first_index)
            self._run_terms.append(batch.term)
        self._batches.append(batch)
        self._starts.append(batch.first_index)
        self.last_index = batch.last_index
        self.resident_bytes += len(batch.record)

    def truncate(self, from_index: int) -> None:
        """Cut the log so that `from_index - 1` is its last entry, which must end a batch."""
        while self._starts and self._starts[-1] >= from_index:
            self._starts.pop()
            self.resident_bytes -= len(self._batches.pop().record)
        if self._batches and self._batches[-1].last_index >= from_index:
            raise ValueError(f"a cut at {from_index} would split a batch")
        self.last_index = from_index - 1
        while self._run_starts and self._run_starts[-1] >= from_index:
            self._run_starts.pop()
            self._run_terms.pop()

    def compact(self, upto_index: int) -> None:
        """Make the entry `upto_index`, which must end a batch, the base."""
        self.base_term = self.term_at(upto_index)
        self.base_index = upto_index
        gone = bisect_right(self._run_starts, upto_index)
        if gone:
            # A run that goes on behind the base starts right behind it now.
            term = self._run_terms[gone - 1]
            goes_on = upto_index < self.last_index and (
                gone == len(self._run_starts) or self._run_starts[gone] > upto_index + 1
            )
            del self._run_starts[:gone]
            del self._run_terms[:gone]
            if goes_on:
                self._run_starts.insert(0, upto_index + 1)
                self._run_terms.insert(0, term)
        drop = bisect_right(self._starts, upto_index)
        self.resident_bytes -= sum(len(batch.record) for batch in self._batches[:drop])
        del self._batches[:drop]
        del self._starts[:drop]

    def reset(self, base_index: int, base_term: int) -> None:
        """Forget all entries: the log begins anew behind this one."""
        self.base_index, self.base_term = base_index, base_term
        self.last_index = base_index
        self.resident_bytes = 0
        for part in (self._run_starts, self._run_terms, self._starts, self._batches):
            part.clear()

    def slice(self, from_index: int, to_index: int, max_bytes: int) -> tuple[Batch, ...] | None:
        """Whole batches from the one that holds `from_index` up to `to_index`: at least one, and
        no more once `max_bytes` are reached. None when they are not resident.
        """
        starts = self._starts
        if not starts or from_index < starts[0]:
            return None
        taken: list[Batch] = []
        size = 0
        for position in range(bisect_right(starts, from_index) - 1, len(starts)):
            batch = self._batches[position]
            if batch.last_index > to_index or (taken and size + len(batch.record) > max_bytes):
                break
            taken.append(batch)
            size += len(batch.record)
        return tuple(taken)

    def trim_resident(self, up_to_index: int, keep_bytes: int) -> None:
        """Drop resident batches from the front that end at or before `up_to_index`, until no more
        than `keep_bytes` are left. Acts only when twice that is there, so that the cost is spread.
        """
        if self.resident_bytes <= 2 * keep_bytes:
            return
        drop = 0
        for batch in self._batches:
            if self.resident_bytes <= keep_bytes or batch.last_index > up_to_index:
                break
            self.resident_bytes -= len(batch.record)
            drop += 1
        del self._batches[:drop]
        del self._starts[:drop]
