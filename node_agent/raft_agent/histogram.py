"""How long things took, counted so cheaply that the hot path may do it."""

from __future__ import annotations

BUCKETS = 27
"""The last one holds everything over 2**25 microseconds (34 s)."""

_LAST = BUCKETS - 1


class Histogram:
    """Durations by powers of two: bucket i counts those of more than 2**(i-1) and at most 2**i µs.

    One thread adds. Others may read meanwhile: what they see is at most one addition old.
    """

    __slots__ = ("buckets", "sum_us")

    def __init__(self) -> None:
        self.buckets = [0] * BUCKETS
        self.sum_us = 0

    def add(self, duration_us: int, count: int = 1) -> None:
        """`count` things took `duration_us` (not negative) each."""
        bucket = (duration_us - 1).bit_length() if duration_us else 0
        self.buckets[bucket if bucket < _LAST else _LAST] += count
        self.sum_us += duration_us * count


def add_up(histograms: list[Histogram]) -> Histogram:
    """All of them in one."""
    total = Histogram()
    for histogram in histograms:
        total.sum_us += histogram.sum_us
        for place, count in enumerate(histogram.buckets):
            total.buckets[place] += count
    return total
