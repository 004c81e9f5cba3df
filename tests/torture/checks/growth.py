"""What only grows: sets, lists and counters lose nothing and get nothing twice."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from tests.torture.checks.truth import end_of
from tests.torture.history import Record


def _by_key(records: Iterable[Record], kind: str) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.kind == kind:
            found[record.key].append(record)
    return found


def _last_values(records: Sequence[Record]) -> dict[str, tuple[str, int]] | None:
    """(value, version) of each key in the end; None when the run did not get there."""
    end = end_of(records)
    return None if end is None else {key: (value, version) for key, value, _, version in end.out}


def check_sets(records: Sequence[Record]) -> list[str]:
    complaints = []
    last = _last_values(records)
    end = end_of(records)
    for prefix, found in _by_key(records, "set").items():
        adds = {record.args[0]: record for record in found if record.op == "add"}
        lists = [
            (r.called_ns, r.returned_ns, set(r.out))
            for r in found
            if r.op == "list" and r.outcome == "ok"
        ]
        if last is not None and end is not None:
            elements = {key.removeprefix(prefix) for key in last if key.startswith(prefix)}
            lists.append((end.called_ns, end.returned_ns, elements))
        lists.sort()
        for element, add in adds.items():
            if add.code == "conflict":
                complaints.append(f"{prefix}{element} was there before it was added: {add}")
        for called, _, elements in lists:
            for element in elements - adds.keys():
                complaints.append(f"{prefix}{element} was never added")
            for element, add in adds.items():
                if add.outcome == "no" and element in elements:
                    complaints.append(f"{prefix}{element} was refused and is there: {add}")
                if add.outcome == "ok" and add.returned_ns < called and element not in elements:
                    complaints.append(f"{prefix}{element} was added and is not there: {add}")
        complaints += _shrinking(prefix, lists)
    return complaints


def _shrinking(prefix: str, lists: list[tuple[int, int, set[str]]]) -> list[str]:
    by_return = sorted(lists, key=lambda item: item[1])
    seen: set[str] = set()
    position = 0
    complaints = []
    for called, _, elements in lists:
        while position < len(by_return) and by_return[position][1] < called:
            seen |= by_return[position][2]
            position += 1
        if seen - elements:
            complaints.append(f"{prefix}: {sorted(seen - elements)} was listed and then was not")
    return complaints


def check_lists(records: Sequence[Record]) -> list[str]:
    complaints = []
    last = _last_values(records)
    for key, found in _by_key(records, "list").items():
        reads = [r for r in found if r.op == "get" and r.outcome == "ok"]
        final = max((r.out for r in reads), key=len, default=[])
        if last is not None:
            final = last[key][0].split(",") if key in last else []
        counts = Counter(final)
        complaints += [f"{key} has {e} {n} times" for e, n in counts.items() if n > 1]
        place = {element: number for number, element in enumerate(final)}
        for read in reads:
            if read.out != final[: len(read.out)]:
                complaints.append(f"{key} was {read.out} and is {final} in the end")
        for append in (r for r in found if r.op == "append"):
            element = append.args[0]
            if append.outcome == "no" and element in place:
                complaints.append(f"{element} was refused and is in {key}: {append}")
            if append.outcome != "ok":
                continue
            if element not in place and last is not None:
                complaints.append(f"{element} was appended and is not in {key}: {append}")
            for read in reads:
                if read.called_ns > append.returned_ns and element not in read.out:
                    complaints.append(f"{key} was read without {element}, appended before: {read}")
    return complaints


def check_counters(records: Sequence[Record]) -> list[str]:
    complaints = []
    last = _last_values(records)
    for key, found in _by_key(records, "counter").items():
        adds = [r for r in found if r.op == "add_one"]
        done = [r for r in adds if r.outcome == "ok" and r.out]
        unknown = sum(r.outcome == "unknown" for r in adds)
        for value, count in Counter(r.args[0] for r in done).items():
            if count > 1:
                complaints.append(f"{key} was counted on from {value} {count} times")
        if last is not None:
            value = int(last[key][0]) if key in last else 0
            if not len(done) <= value <= len(done) + unknown:
                complaints.append(
                    f"{key} is {value} after {len(done)} additions and {unknown} of unknown outcome"
                )
        for read in (r for r in found if r.op == "read" and r.outcome == "ok"):
            before = max((r.args[0] + 1 for r in done if r.returned_ns < read.called_ns), default=0)
            if read.out < before:
                complaints.append(f"{key} was read as {read.out} when it was {before}")
    return complaints


def check_once(records: Sequence[Record]) -> list[str]:
    """A key's version counts its puts: each that was acknowledged, once."""
    complaints = []
    for key, found in _by_key(records, "once").items():
        done = unknown = 0
        latest = None
        for record in sorted(found, key=lambda r: r.called_ns):
            if record.op == "put":
                done += record.outcome == "ok"
                unknown += record.outcome == "unknown"
                if record.outcome != "no":
                    latest = record.args[0] if record.outcome == "ok" else None
            elif record.outcome == "ok":
                version, value = record.out
                if not done <= version <= done + unknown:
                    complaints.append(
                        f"{key} has version {version} after {done} puts and {unknown} of unknown "
                        "outcome"
                    )
                if latest is not None and value != latest and not unknown:
                    complaints.append(f"{key} is {value}, and {latest} was put last")
    return complaints
