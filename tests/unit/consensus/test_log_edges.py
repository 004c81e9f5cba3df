"""The log at its edges: gaps, cuts inside batches, exact sizes, a start that is not 1."""

from __future__ import annotations

import pytest

from raft_agent.consensus.log import RaftLog
from raft_agent.consensus.types import LogImage
from tests.unit.consensus.server import entry, first_resident_index, image_of, log_of


def log_with(*terms: int) -> RaftLog:
    return RaftLog(image_of(log_of(*terms)))


@pytest.mark.parametrize("index", [3, 5, 7])
def test_a_batch_that_does_not_follow_the_last_entry_is_refused(index: int) -> None:
    log = log_with(1, 1, 2)
    with pytest.raises(ValueError, match="can't follow"):
        log.append(entry(index, 2))
    assert log.last_index == 3


def test_a_batch_of_an_earlier_term_is_refused() -> None:
    log = log_with(1, 1, 2)
    with pytest.raises(ValueError, match="can't follow"):
        log.append(entry(4, 1))


@pytest.mark.parametrize("from_index", [4, 5])
def test_a_cut_inside_a_batch_is_refused(from_index: int) -> None:
    """Wherever in the batch, and whatever stands before it."""
    log = log_with(1, 1)
    log.append(entry(3, 1, count=3))
    with pytest.raises(ValueError, match="would split a batch"):
        log.truncate(from_index)


def test_entries_of_one_term_are_one_run_however_many_batches() -> None:
    """The runs of all entries stay in memory for ever, so they must not grow with the log."""
    log = log_with(1)
    for index in range(2, 50):
        log.append(entry(index, 1 + index // 25))
    assert log._run_starts == [1, 25]
    assert log._run_terms == [1, 2]
    log.truncate(25)
    log.append(entry(25, 4))
    assert log._run_terms == [1, 4]
    assert [log.term_at(index) for index in (24, 25)] == [1, 4]


def test_a_slice_takes_as_many_bytes_as_it_may_exactly() -> None:
    log = log_with(1, 1, 1, 1)
    sizes = [len(batch.record) for batch in log.resident_batches]
    for bytes_over, batches in ((-1, 1), (0, 2), (1, 2)):
        taken = log.slice(2, 4, sizes[1] + sizes[2] + bytes_over)
        assert taken is not None
        assert [batch.first_index for batch in taken] == [2, 3][:batches]


def test_a_slice_ends_at_the_index_that_it_is_given() -> None:
    log = log_with(1, 1)
    log.append(entry(3, 1, count=2))
    for to_index, starts in ((2, [2]), (3, [2]), (4, [2, 3])):
        taken = log.slice(2, to_index, 1 << 20)
        assert taken is not None
        assert [batch.first_index for batch in taken] == starts


@pytest.mark.parametrize(("up_to_index", "left"), [(1, [2, 3]), (2, [3]), (3, [])])
def test_what_ends_at_the_limit_may_leave_memory(up_to_index: int, left: list[int]) -> None:
    log = log_with(1, 1, 1)
    log.trim_resident(up_to_index, 0)
    assert [batch.first_index for batch in log.resident_batches] == left
    assert log.resident_bytes == sum(len(batch.record) for batch in log.resident_batches)
    assert first_resident_index(log) == (left[0] if left else 4)


def test_memory_keeps_what_it_may_keep() -> None:
    log = log_with(1, 1, 1, 1, 1)
    record = len(log.resident_batches[-1].record)
    log.trim_resident(5, 2 * record)
    assert [batch.first_index for batch in log.resident_batches] == [4, 5]


def test_a_log_that_does_not_start_at_1_holds_nothing_before() -> None:
    log = RaftLog(LogImage(base_index=4, base_term=1, last_index=6, term_runs=((5, 2), (6, 3))))
    assert not log.holds(3, 1)
    assert not log.holds(0, 0)
    assert not log.holds(4, 2)
    assert log.holds(4, 1)
    assert log.holds(5, 2)
    assert log.holds(6, 3)
    assert not log.holds(7, 3)
    with pytest.raises(IndexError, match=r"3 is not in 4\.\.6"):
        log.term_at(3)
    with pytest.raises(IndexError, match=r"7 is not in 4\.\.6"):
        log.term_at(7)


@pytest.mark.parametrize("terms", [(1,), (1, 1, 1), (1, 4, 5), (1, 2, 2, 4, 4, 7), (1, 3, 5, 6)])
def test_the_last_entry_of_at_most_a_term_is_the_last_such_entry(terms: tuple[int, ...]) -> None:
    log = log_with(*terms)
    for index in range(len(terms) + 3):
        for term in range(9):
            fitting = [i for i, t in enumerate(terms, 1) if i <= index and t <= term]
            assert log.last_at_most(index, term) == max(fitting, default=0), (index, term)


@pytest.mark.parametrize("upto_index", [1, 2, 3, 4])
def test_where_logs_may_agree_is_right_before_a_base_in_the_middle_of_a_term(
    upto_index: int,
) -> None:
    log = RaftLog(LogImage())
    for index in range(1, 5):
        log.append(entry(index, 2))
    log.compact(upto_index)
    assert log.last_at_most(4, 1) == upto_index - 1
    assert log.last_at_most(4, 2) == 4
