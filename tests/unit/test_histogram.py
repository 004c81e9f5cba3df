"""Counting durations by powers of two."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft_agent.histogram import BUCKETS, Histogram, add_up


@pytest.mark.parametrize(
    ("duration_us", "bucket"),
    [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (1024, 10), (1025, 11), (1 << 60, 26)],
)
def test_a_duration_is_counted_up_to_its_power_of_two(duration_us: int, bucket: int) -> None:
    histogram = Histogram()
    histogram.add(duration_us)
    assert [place for place, count in enumerate(histogram.buckets) if count] == [bucket]
    assert histogram.sum_us == duration_us


@given(st.lists(st.tuples(st.integers(0, 1 << 40), st.integers(1, 100))))
def test_nothing_is_lost(durations: list[tuple[int, int]]) -> None:
    histogram = Histogram()
    for duration_us, count in durations:
        histogram.add(duration_us, count)
    assert sum(histogram.buckets) == sum(count for _, count in durations)
    assert histogram.sum_us == sum(duration_us * count for duration_us, count in durations)
    assert len(histogram.buckets) == BUCKETS


def test_several_are_added_up_without_being_changed() -> None:
    first, second = Histogram(), Histogram()
    first.add(3)
    second.add(3)
    second.add(100)
    total = add_up([first, second])
    assert (total.sum_us, sum(total.buckets), total.buckets[2]) == (106, 3, 2)
    assert (first.sum_us, sum(first.buckets)) == (3, 1)
    assert add_up([]).buckets == [0] * BUCKETS
