"""A log that loses its beginning, against a dictionary of terms."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from raft_agent.consensus.batch import Batch
from raft_agent.consensus.log import RaftLog
from raft_agent.consensus.types import LogImage
from tests.unit.consensus.server import entry, first_resident_index, image_of


class CompactionMachine(RuleBasedStateMachine):
    """`terms` has the base and all entries behind it; `batches` those that are not compacted."""

    def __init__(self) -> None:
        super().__init__()
        self.log = RaftLog(LogImage())
        self.terms = {0: 0}
        self.batches: list[Batch] = []
        self.gone: list[int] = []

    @property
    def base(self) -> int:
        return min(self.terms)

    @property
    def last(self) -> int:
        return max(self.terms)

    @rule(count=st.integers(1, 4), rise=st.integers(0, 2))
    def append(self, count: int, rise: int) -> None:
        batch = entry(self.last + 1, max(1, self.terms[self.last] + rise), count=count)
        self.log.append(batch)
        self.batches.append(batch)
        for index in range(batch.first_index, batch.last_index + 1):
            self.terms[index] = batch.term

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        position = data.draw(st.integers(0, len(self.batches) - 1))
        first_index = self.batches[position].first_index
        self.log.truncate(first_index)
        del self.batches[position:]
        self.terms = {index: term for index, term in self.terms.items() if index < first_index}

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        position = data.draw(st.integers(0, len(self.batches) - 1))
        upto_index = self.batches[position].last_index
        self.log.compact(upto_index)
        del self.batches[: position + 1]
        self.terms = {index: term for index, term in self.terms.items() if index >= upto_index}

    @rule(ahead=st.integers(1, 5), rise=st.integers(0, 2))
    def reset(self, ahead: int, rise: int) -> None:
        index, term = self.last + ahead, max(1, self.terms[self.last] + rise)
        self.log.reset(index, term)
        self.batches = []
        self.terms = {index: term}

    @rule()
    def restart(self) -> None:
        base = (self.base, self.terms[self.base])
        self.log = RaftLog(image_of(self.batches, base=base))

    @invariant()
    def looks_alike(self) -> None:
        log = self.log
        assert (log.base_index, log.base_term) == (self.base, self.terms[self.base])
        assert (log.last_index, log.last_term) == (self.last, self.terms[self.last])
        assert {i: log.term_at(i) for i in range(self.base, self.last + 1)} == self.terms
        assert log.resident_batches == tuple(self.batches)
        assert log.resident_bytes == sum(len(batch.record) for batch in self.batches)
        first = self.batches[0].first_index if self.batches else self.last + 1
        assert first_resident_index(log) == first == self.base + 1

    @invariant()
    def nothing_is_known_outside(self) -> None:
        for index in (self.base - 1, self.last + 1):
            with pytest.raises(IndexError):
                self.log.term_at(index)
            assert not self.log.holds(index, self.terms[self.last])

    @rule(back=st.integers(0, 6), term=st.integers(0, 12))
    def ask(self, back: int, term: int) -> None:
        index = max(self.last - back, 0)
        assert self.log.holds(index, term) == (self.terms.get(index) == term)
        agreeing = [i for i in self.terms if i <= index and self.terms[i] <= term]
        before = min(index, self.base - 1)
        assert self.log.last_at_most(index, term) == max(agreeing, default=before)

    @rule(data=st.data())
    def slice(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(max(self.base - 1, 1), self.last + 1))
        if index > self.last:
            return
        taken = self.log.slice(index, self.last, 1)
        if index <= self.base:
            assert taken is None
        else:
            assert taken == (next(b for b in self.batches if b.last_index >= index),)


CompactionMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=20, deadline=None
)
TestCompactionMachine = CompactionMachine.TestCase
