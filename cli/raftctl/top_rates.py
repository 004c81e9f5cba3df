"""Counters of an agent become what happened between two looks at them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from raft_agent.api.protocol import VitalsResult

KEPT = 60
_RECENT_S = 30.0
_LEAST_S = 0.2


@dataclass(frozen=True)
class Column:
    """What happened in `seconds`: entries committed, and how many took how long, by latency."""

    seconds: float
    committed: int
    latencies: dict[str, list[int]]


class Rates:
    """The newest `KEPT` columns, oldest first."""

    def __init__(self) -> None:
        self.columns: deque[Column] = deque(maxlen=KEPT)
        self._last: VitalsResult | None = None

    def add(self, vitals: VitalsResult) -> None:
        """Another look. After a restart of the agent its counters begin anew."""
        last = self._last
        if last is None or last.started != vitals.started:
            self._last = vitals
            return
        seconds = (_moment(vitals.time) - _moment(last.time)).total_seconds()
        if seconds < _LEAST_S:
            return
        self._last = vitals
        latencies = {
            name: [
                now - before
                for now, before in zip(latency.buckets, last.latencies[name].buckets, strict=True)
            ]
            for name, latency in vitals.latencies.items()
        }
        committed = max(vitals.commit_index - last.commit_index, 0)
        self.columns.append(Column(seconds, committed, latencies))

    def committed_per_s(self) -> list[float]:
        """Of each column."""
        return [column.committed / column.seconds for column in self.columns]

    def recent(self, name: str) -> tuple[list[int], float]:
        """(buckets, seconds) of the last half minute together."""
        rows: list[list[int]] = []
        seconds = 0.0
        for column in reversed(self.columns):
            if seconds >= _RECENT_S:
                break
            seconds += column.seconds
            rows.append(column.latencies[name])
        return [sum(counts) for counts in zip(*rows, strict=True)], seconds


def percentile(buckets: Sequence[int], share: float) -> float | None:
    """The microseconds that a `share` of all stay under: between the bounds of its bucket by its
    place among those in there. None without any.
    """
    rank = share * sum(buckets)
    if not rank:
        return None
    for place, count in enumerate(buckets):
        if count and rank <= count:
            return float(2 ** (place - 1 + rank / count))
        rank -= count
    return float(2 ** (len(buckets) - 1))


def _moment(rfc3339: str) -> datetime:
    return datetime.fromisoformat(rfc3339)
