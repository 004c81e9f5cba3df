"""A log as a list of batches: what a disk holds, and what the checks know to be committed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from functools import lru_cache

from raft_agent.consensus.batch import Batch, BatchKind
from raft_agent.consensus.membership import decode_configuration
from raft_agent.consensus.types import Configuration


@lru_cache(maxsize=256)
def configuration_in(payload: bytes) -> Configuration:
    """The configuration that a batch's payload holds."""
    return decode_configuration(payload)


class LogFile:
    """Consecutive batches behind the entry (`base_index`, `base_term`), found by index.

    `configurations`: those in the log with their indexes; when there is a base, the one in force
    there comes first.
    """

    __slots__ = (
        "base_index",
        "base_term",
        "batches",
        "configurations",
        "last_index",
        "last_term",
        "starts",
    )

    def __init__(
        self,
        batches: Iterable[Batch] = (),
        base: tuple[int, int] = (0, 0),
        in_force: tuple[int, Configuration] | None = None,
    ) -> None:
        self.base_index, self.base_term = base
        self.batches: list[Batch] = []
        self.starts: list[int] = []
        self.configurations = [in_force] if in_force is not None else []
        self.write(0, batches)

    def copy(self) -> LogFile:
        """Another one with the same batches."""
        other = LogFile((), (self.base_index, self.base_term))
        other.batches, other.starts = self.batches.copy(), self.starts.copy()
        other.configurations = self.configurations.copy()
        other.last_index, other.last_term = self.last_index, self.last_term
        return other

    @property
    def configuration(self) -> Configuration | None:
        """The latest one."""
        return self.configurations[-1][1] if self.configurations else None

    @property
    def configuration_index(self) -> int:
        return self.configurations[-1][0] if self.configurations else 0

    def write(self, truncate_from: int, batches: Iterable[Batch]) -> None:
        if truncate_from:
            while self.starts and self.starts[-1] >= truncate_from:
                self.starts.pop()
                self.batches.pop()
            while self.configurations and self.configurations[-1][0] >= truncate_from:
                self.configurations.pop()
        for batch in batches:
            self.starts.append(batch.first_index)
            self.batches.append(batch)
            if batch.kind == BatchKind.CONFIGURATION:
                found = configuration_in(bytes(batch.payload))
                self.configurations.append((batch.first_index, found))
        last = self.batches[-1] if self.batches else None
        self.last_index = last.last_index if last is not None else self.base_index
        self.last_term = last.term if last is not None else self.base_term

    def compact(self, upto_index: int) -> None:
        """Forget the batches that end at or before `upto_index`; the last of them is the base."""
        gone = bisect_right(self.starts, upto_index)
        if gone and self.batches[gone - 1].last_index > upto_index:
            gone -= 1
        if not gone:
            return
        base = self.batches[gone - 1]
        self.base_index, self.base_term = base.last_index, base.term
        del self.batches[:gone], self.starts[:gone]
        known = self.configurations
        while len(known) > 1 and known[1][0] <= self.base_index:
            del known[0]

    def batch_at(self, index: int) -> Batch | None:
        """The batch that holds the entry `index`."""
        if not self.base_index < index <= self.last_index:
            return None
        return self.batches[bisect_right(self.starts, index) - 1]

    def term_at(self, index: int) -> int:
        """The term of the entry `index`, or of the base; 0 when it is not there."""
        if index == self.base_index:
            return self.base_term
        batch = self.batch_at(index)
        return batch.term if batch is not None else 0

    def batches_from(self, index: int) -> list[Batch]:
        """All batches from the one on that holds the entry `index`."""
        if not self.base_index < index <= self.last_index:
            return []
        return self.batches[bisect_right(self.starts, index) - 1 :]

    def configuration_at(self, index: int) -> tuple[int, Configuration] | None:
        """The configuration in force at the entry `index`, and where it stands."""
        return next((known for known in reversed(self.configurations) if known[0] <= index), None)
