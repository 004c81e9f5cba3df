"""Messages and watches: in order, each once, without a gap, and what others saw."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from tests.torture.checks.truth import Event, Truth, end_of, truth_of
from tests.torture.history import Record

# How many of the newest changes of keys are kept by default (history_keep), and how far the store
# may be ahead of what clients were told of it.
_KEPT = 10_000
_AHEAD = 500
_SHOWN = 3


def check_messages(records: Sequence[Record]) -> list[str]:
    end = end_of(records, "messages")
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
    """Each watch began with the first message, went on over lost connections, and was told all."""
    complaints = []
    told: dict[int, list[list[Any]]] = defaultdict(list)
    for record in records:
        if record.kind == "message_watch":
            told[record.client].append([record.index, record.out])
    for client, seen in told.items():
        if seen != end.out:
            place = next(
                (n for n, item in enumerate(seen) if end.out[n : n + 1] != [item]), len(seen)
            )
            complaints.append(
                f"watch {client} of messages was told {seen[place : place + _SHOWN]} where the log "
                f"has {end.out[place : place + _SHOWN]}"
            )
    return complaints


def check_watches(records: Sequence[Record]) -> list[str]:
    """No gap, in order, from the revision that was asked for, to the end; and all watches, writes
    and reads say the same of each revision."""
    truth = truth_of(records)
    complaints = [text for watch in truth.watches.values() for text in watch.complaints]
    complaints += truth.complaints
    for name, watch in truth.watches.items():
        if gap := watch.gap():
            complaints.append(
                f"watch {name} from {watch.start} to {watch.last} lacks {gap[:_SHOWN]}"
            )
    covered = truth.covered()
    for record in records:
        complaints += _against(record, truth.events, covered)
    return complaints + _late_begins(records, truth) + _compacted(records) + _short(records, truth)


def _late_begins(records: Sequence[Record], truth: Truth) -> list[str]:
    """A watch from now on is told everything that is written after it has begun."""
    complaints = []
    writes = sorted(
        (record.called_ns, record.revision)
        for record in records
        if record.outcome == "ok" and record.index and _told(record)
    )
    lowest, least = [], 1 << 62
    for called_ns, revision in reversed(writes):
        least = min(least, revision)
        lowest.append((called_ns, least))
    lowest.reverse()
    for begin in (r for r in records if r.kind == "key_watch" and r.op == "begin"):
        watch = truth.watches[begin.out]
        if begin.args[0] or not watch.start:
            continue
        place = bisect_right(lowest, (begin.returned_ns, 1 << 62))
        if place < len(lowest) and lowest[place][1] < watch.start:
            complaints.append(
                f"watch {begin.out} from now on begins with {watch.start}, and revision "
                f"{lowest[place][1]} was written after it had begun"
            )
    return complaints


def _compacted(records: Sequence[Record]) -> list[str]:
    """What is kept by default was never refused to a watch."""
    complaints = []
    for refused in (r for r in records if r.kind == "key_watch" and r.op == "compacted"):
        newest = max((r.revision for r in records if r.called_ns < refused.returned_ns), default=0)
        if refused.args[0] > newest + _AHEAD - _KEPT:
            complaints.append(f"of {newest} revisions the latest are not kept: {refused}")
    return complaints


def _short(records: Sequence[Record], truth: Truth) -> list[str]:
    """Each client's watches went on until they were told of what was there in the end."""
    end = end_of(records)
    if end is None:
        return []
    told: dict[int, int] = defaultdict(int)
    for watch in truth.watches.values():
        told[watch.client] = max(told[watch.client], watch.last)
    return [
        f"the watches of client {client} end with revision {last}, and the store with {end.args[0]}"
        for client, last in told.items()
        if last < end.args[0]
    ]


def _against(
    record: Record, truth: dict[int, list[Event]], covered: list[tuple[int, int]]
) -> list[str]:
    """What one client was told of a revision, against what watches were told."""
    wanted = _told(record) if record.outcome == "ok" else []
    return [
        f"revision {revision} is {truth.get(revision)} to watches, but {event} to {record.kind} "
        f"{record.op} of client {record.client}"
        for revision, event in wanted
        if any(first <= revision <= last for first, last in covered)
        and not any(_is(event, told) for told in truth.get(revision, []))
    ]


def _is(event: Event, told: Event) -> bool:
    """A list's client knows the element that it appended, and not what stands before it."""
    if event[0] == "append":
        return told[:2] == ("put", event[1]) and told[2].split(",")[-1] == event[2]
    return event == told


def _told(record: Record) -> list[tuple[int, Event]]:
    """(revision, what it did) of all that an answer tells."""
    revision, key, args, out = record.revision, record.key, record.args, record.out
    match record.kind, record.op:
        case "register" | "once" | "export", "put":
            return [(revision, ("put", key, args[0]))]
        case "register", "cas":
            return [(revision, ("put", key, args[1]))]
        case "register" | "export", "delete" if out:
            return [(revision, ("delete", key, ""))]
        case "register", _ if record.op.startswith("get") and out[1]:
            return [(out[1], ("put", key, out[0]))]
        case "set", "add":
            return [(revision, ("put", key + args[0], "x"))]
        case "list", "append":
            return [(revision, ("append", key, args[0]))]
        case "counter", "add_one" if out:
            return [(revision, ("put", key, str(args[0] + 1)))]
        case "lock", "fenced" if out:
            return [(revision, ("put", f"f/{key}", str(args[0])))]
        case "lease", "put_leased":
            return [(revision, ("put", key, "x"))]
        case "txn", _ if out[0]:
            return [
                (revision, ("put", f"{key}/{step[1]}", step[2]))
                for step in args[1]
                if step[0] == "put"
            ]
        case "end", "keys":
            return [(item[2], ("put", item[0], item[1])) for item in out]
    return []


def check_end(records: Sequence[Record]) -> list[str]:
    """All keys in the end are those that all changes come to. What changed while they were read may
    be there or not."""
    end = end_of(records)
    if end is None:
        return []
    first, last = end.revision, end.args[0]
    truth = truth_of(records)
    if not any(start <= 1 and until >= last for start, until in truth.covered()):
        return [f"watches told of {truth.covered()}, and not of all revisions up to {last}"]
    wanted: dict[str, tuple[str, int]] = {}
    moving: set[str] = set()
    for revision, events in truth.in_order():
        for kind, key, value in events if revision <= last else []:
            if revision > first:
                moving.add(key)
            if kind == "put":
                wanted[key] = (value, revision)
            else:
                wanted.pop(key, None)
    found = {key: (value, revision) for key, value, revision, _ in end.out}
    return [
        f"{key} is {found.get(key)} in the end, and all changes come to {wanted.get(key)}"
        for key in sorted((wanted.keys() | found.keys()) - moving)
        if wanted.get(key) != found.get(key)
    ]
