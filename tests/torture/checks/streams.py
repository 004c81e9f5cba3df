"""Messages and watches: in order, each once, without a gap, and what others saw."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from tests.torture.history import Record

Event = tuple[str, str, str]
_SHOWN = 3


def check_messages(records: Sequence[Record]) -> list[str]:
    end = next((r for r in records if r.kind == "end" and r.op == "messages"), None)
    if end is None:
        return []
    complaints = []
    places: dict[str, int] = {}
    for index, text in end.out:
        if text in places:
            complaints.append(f"the message {text} is there twice: {places[text]} and {index}")
        places[text] = index
    indexes = [index for index, _ in end.out]
    if any(a >= b for a, b in pairwise(indexes)):
        complaints.append("the messages are not in the order of their indexes")
    sends = [r for r in records if r.kind == "message"]
    for send in sends:
        place = places.get(send.args[0])
        if send.outcome == "ok" and place != send.index:
            complaints.append(f"a message was promised at {send.index} and is at {place}: {send}")
        if send.outcome == "no" and place is not None:
            complaints.append(f"a message was refused and is at {place}: {send}")
    done = sorted((r for r in sends if r.outcome == "ok"), key=lambda r: r.returned_ns)
    latest = position = 0
    for send in sorted(sends, key=lambda r: r.called_ns):
        while position < len(done) and done[position].returned_ns < send.called_ns:
            latest = max(latest, done[position].index)
            position += 1
        place = places.get(send.args[0])
        if place is not None and place < latest:
            complaints.append(f"a message stands before an earlier one: {send}")
    return complaints + _message_watches(records, end)


def _message_watches(records: Sequence[Record], end: Record) -> list[str]:
    """Each watch began with the first message and went on over lost connections."""
    complaints = []
    told: dict[int, list[list[Any]]] = defaultdict(list)
    for record in records:
        if record.kind == "message_watch":
            told[record.client].append([record.index, record.out])
    for client, seen in told.items():
        if seen != end.out[: len(seen)]:
            place = next(n for n, item in enumerate(seen) if end.out[n : n + 1] != [item])
            complaints.append(
                f"watch {client} of messages was told {seen[place : place + _SHOWN]} where the log "
                f"has {end.out[place : place + _SHOWN]}"
            )
    return complaints


class _Watch:
    """One watch of keys: all revisions from `start` to `last`, complete."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.last = start - 1
        self.events: dict[int, list[Event]] = {}
        self.complaints: list[str] = []
        self._open: list[Event] = []

    def add(self, record: Record) -> None:
        kind, value, more = record.args
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


def check_watches(records: Sequence[Record]) -> list[str]:
    """No gap, in order, from the revision that was asked for; and all watches, writes and reads say
    the same of each revision."""
    watches: dict[str, _Watch] = {}
    for record in records:
        if record.kind == "key_watch":
            if record.op == "begin":
                watches[record.out] = _Watch(record.args[0])
            else:
                watches[record.out].add(record)
    complaints = [text for watch in watches.values() for text in watch.complaints]
    truth: dict[int, list[Event]] = {}
    for watch in watches.values():
        for revision, events in watch.events.items():
            known = truth.setdefault(revision, events)
            if known != events:
                complaints.append(f"revision {revision} is {known} and {events} to two watches")
    for name, watch in watches.items():
        expected = {r for r in truth if watch.start <= r <= watch.last}
        if expected - watch.events.keys():
            gap = sorted(expected - watch.events.keys())
            complaints.append(
                f"watch {name} from {watch.start} to {watch.last} lacks {gap[:_SHOWN]}"
            )
    covered = _covered(watches)
    for record in records:
        complaints += _against(record, truth, covered)
    return complaints


def _covered(watches: dict[str, _Watch]) -> list[tuple[int, int]]:
    """All ranges of revisions of which some watch has told."""
    merged: list[tuple[int, int]] = []
    for start, last in sorted((watch.start, watch.last) for watch in watches.values()):
        if merged and start <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        elif last >= start:
            merged.append((start, last))
    return merged


def _against(
    record: Record, truth: dict[int, list[Event]], covered: list[tuple[int, int]]
) -> list[str]:
    """What one client was told of a revision, against what watches were told."""
    wanted: list[tuple[int, Event]] = []
    if record.outcome == "ok":
        match record.kind, record.op:
            case "register" | "once", "put":
                wanted.append((record.revision, ("put", record.key, record.args[0])))
            case "register", "cas":
                wanted.append((record.revision, ("put", record.key, record.args[1])))
            case "register", "delete" if record.out:
                wanted.append((record.revision, ("delete", record.key, "")))
            case "register", _ if record.op.startswith("get") and record.out[1]:
                wanted.append((record.out[1], ("put", record.key, record.out[0])))
            case "set", "add":
                wanted.append((record.revision, ("put", record.key + record.args[0], "x")))
            case "txn", _ if record.out[0]:
                wanted += [
                    (record.revision, ("put", f"{record.key}/{step[1]}", step[2]))
                    for step in record.args[1]
                    if step[0] == "put"
                ]
            case "end", "keys":
                wanted += [(item[2], ("put", item[0], item[1])) for item in record.out]
    return [
        f"revision {revision} is {truth.get(revision)} to watches, but {event} to {record.kind} "
        f"{record.op} of client {record.client}"
        for revision, event in wanted
        if any(first <= revision <= last for first, last in covered)
        and event not in truth.get(revision, [])
    ]
