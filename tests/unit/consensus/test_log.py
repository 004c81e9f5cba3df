"""log.py against a list of entries."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from raft_agent.consensus.batch import Batch
from raft_agent.consensus.log import RaftLog
from raft_agent.consensus.types import LogImage
from tests.unit.consensus.server import entry, examples, first_resident_index, image_of

SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=8)
TERMS = st.lists(st.integers(0, 2), min_size=8, max_size=8)


def batches_of(sizes: list[int], rises: list[int]) -> list[Batch]:
    """Consecutive batches whose terms rise by what `rises` says."""
    made: list[Batch] = []
    index, term = 1, 1
    for size, rise in zip(sizes, rises, strict=False):
        term += rise
        made.append(entry(index, term, count=size))
        index += size
    return made


class NaiveLog:
    """One list of batches, everything looked up by walking it."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches

    @property
    def terms(self) -> list[int]:
        """The term of each entry, with that of index 0 in front."""
        return [0] + [batch.term for batch in self.batches for _ in range(batch.count)]

    def last_at_most(self, index: int, term: int) -> int:
        last = min(index, len(self.terms) - 1)
        return max(i for i in range(last + 1) if self.terms[i] <= term)


class LogMachine(RuleBasedStateMachine):
    """Appends, cuts and trims; after each the two logs must look alike."""

    def __init__(self) -> None:
        super().__init__()
        self.naive = NaiveLog([])
        self.log = RaftLog(LogImage())
        self.trimmed = 0

    @rule(count=st.integers(1, 5), rise=st.integers(0, 2), size=st.integers(1, 200))
    def append(self, count: int, rise: int, size: int) -> None:
        term = max(1, self.naive.terms[-1] + rise)
        batch = entry(len(self.naive.terms), term, count=count, payload=b"x" * size)
        self.naive.batches.append(batch)
        self.log.append(batch)

    @precondition(lambda self: self.naive.batches)
    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        position = data.draw(st.integers(0, len(self.naive.batches) - 1))
        self.log.truncate(self.naive.batches[position].first_index)
        del self.naive.batches[position:]
        self.trimmed = min(self.trimmed, position)

    @rule(keep=st.integers(0, 600), up_to=st.integers(0, 40))
    def trim(self, keep: int, up_to: int) -> None:
        before = self.log.resident_batches
        self.log.trim_resident(up_to, keep)
        after = self.log.resident_batches
        dropped = before[: len(before) - len(after)]
        assert before[len(dropped) :] == after
        assert all(batch.last_index <= up_to for batch in dropped)
        if dropped and after and after[0].last_index <= up_to:
            assert self.log.resident_bytes <= keep
        self.trimmed += len(dropped)

    @invariant()
    def looks_alike(self) -> None:
        terms = self.naive.terms
        last = len(terms) - 1
        assert self.log.last_index == last
        assert self.log.last_term == terms[-1]
        assert [self.log.term_at(index) for index in range(last + 1)] == terms
        assert self.log.resident_batches == tuple(self.naive.batches[self.trimmed :])
        held = sum(len(batch.record) for batch in self.log.resident_batches)
        assert self.log.resident_bytes == held

    @rule(index=st.integers(0, 40), term=st.integers(0, 12))
    def ask(self, index: int, term: int) -> None:
        terms = self.naive.terms
        assert self.log.holds(index, term) == (index < len(terms) and terms[index] == term)
        assert self.log.last_at_most(index, term) == self.naive.last_at_most(index, term)

    @rule(start=st.integers(0, 10), to_index=st.integers(0, 40), max_bytes=st.integers(0, 900))
    def slice(self, start: int, to_index: int, max_bytes: int) -> None:
        if start >= len(self.naive.batches):
            return
        taken = self.log.slice(self.naive.batches[start].first_index, to_index, max_bytes)
        if start < self.trimmed:
            assert taken is None
            return
        expected: list[Batch] = []
        for batch in self.naive.batches[start:]:
            size = sum(len(b.record) for b in [*expected, batch])
            if batch.last_index > to_index or (expected and size > max_bytes):
                break
            expected.append(batch)
        assert taken == tuple(expected)


LogMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestLogMachine = LogMachine.TestCase


@examples
@given(SIZES, TERMS, st.integers(1, 20))
def test_a_log_made_from_an_image_is_the_one_that_was_appended(
    sizes: list[int], rises: list[int], resident_from: int
) -> None:
    batches = batches_of(sizes, rises)
    log = RaftLog(image_of(batches, resident_from))
    grown = RaftLog(LogImage())
    for batch in batches:
        grown.append(batch)
    assert log.last_index == grown.last_index
    for index in range(log.last_index + 1):
        assert log.term_at(index) == grown.term_at(index)
    tail = [batch for batch in batches if batch.first_index >= resident_from]
    assert log.resident_batches == tuple(tail)
    assert first_resident_index(log) == (tail[0].first_index if tail else log.last_index + 1)


@pytest.mark.parametrize("batch", [entry(3, 1), entry(1, 1), entry(2, 0 + 1)])
def test_only_what_follows_can_be_appended(batch: Batch) -> None:
    log = RaftLog(image_of([entry(1, 2)]))
    with pytest.raises(ValueError, match="can't follow"):
        log.append(batch)


def test_a_cut_inside_a_batch_is_refused() -> None:
    log = RaftLog(image_of([entry(1, 1, count=4)]))
    with pytest.raises(ValueError, match="would split a batch"):
        log.truncate(3)


@pytest.mark.parametrize("index", [-1, 5, 99])
def test_the_term_of_an_entry_outside_the_log_is_an_error(index: int) -> None:
    log = RaftLog(image_of([entry(1, 1, count=4)]))
    with pytest.raises(IndexError):
        log.term_at(index)


def test_trimming_waits_until_twice_as_much_is_there_as_may_stay() -> None:
    """So that its cost is spread over many appends."""
    batches = [entry(index, 1, payload=b"x" * 20) for index in range(1, 11)]
    size = len(batches[0].record)
    log = RaftLog(image_of(batches))
    log.trim_resident(10, 5 * size)
    assert len(log.resident_batches) == 10
    log.trim_resident(10, 4 * size)
    assert len(log.resident_batches) == 4
    assert first_resident_index(log) == 7
