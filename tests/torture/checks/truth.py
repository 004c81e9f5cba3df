"""What watches of all keys were told: together, every change that the store has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.torture.history import Record

# What happened, to which key, and which value it has now.
Event = tuple[str, str, str]


class Watch:
    """One watch of all keys, from the revision `start` to `last`. A watch from now on has the start
    0 until it is told something."""

    def __init__(self, client: int, start: int) -> None:
        self.client = client
        self.start = start
        self.last = start - 1
        self.events: dict[int, list[Event]] = {}
        self.complaints: list[str] = []
        self._open: list[Event] = []

    def add(self, record: Record) -> None:
        kind, value, more = record.args
        if not self.start:
            self.start = record.revision + (kind == "bookmark")
            self.last = self.start - 1
        if kind == "bookmark":
            if record.revision < self.last:
                self.complaints.append(f"a bookmark goes back behind {self.last}: {record}")
            self.last = max(self.last, record.revision)
            return
        if record.revision <= self.last:
            self.complaints.append(f"a watch goes back behind {self.last}: {record}")
        self._open.append((kind, record.key, value))
        if not more:
            self.events[record.revision] = self._open
            self._open = []
            self.last = record.revision

    def gap(self) -> list[int]:
        """Every revision has changes, so all between the first and the last were to be told."""
        return [r for r in range(self.start or 1, self.last + 1) if r not in self.events]


@dataclass
class Truth:
    """`watches` by name; `events` by revision; `complaints`: where watches contradict others."""

    watches: dict[str, Watch] = field(default_factory=dict)
    events: dict[int, list[Event]] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    def covered(self) -> list[tuple[int, int]]:
        """All ranges of revisions of which some watch has told."""
        merged: list[tuple[int, int]] = []
        told = [(watch.start, watch.last) for watch in self.watches.values() if watch.start]
        for start, last in sorted(told):
            if merged and start <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(merged[-1][1], last))
            elif last >= start:
                merged.append((start, last))
        return merged

    def in_order(self) -> list[tuple[int, list[Event]]]:
        return sorted(self.events.items())


def truth_of(records: Sequence[Record]) -> Truth:
    """Of the key watches of a history."""
    truth = Truth()
    for record in records:
        if record.kind == "key_watch" and record.op == "begin":
            truth.watches[record.out] = Watch(record.client, record.args[0])
        elif record.kind == "key_watch" and record.op == "event":
            truth.watches[record.out].add(record)
    for watch in truth.watches.values():
        for revision, events in watch.events.items():
            known = truth.events.setdefault(revision, events)
            if known != events:
                truth.complaints.append(
                    f"revision {revision} is {known} and {events} to two watches"
                )
    return truth


def end_of(records: Sequence[Record], op: str = "keys") -> Record | None:
    """What was read when everybody had ended; None when the run did not get there."""
    return next((r for r in records if r.kind == "end" and r.op == op), None)
