"""Leases live for as long as was promised; locks have one holder; tokens never go back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

from tests.torture.checks.truth import end_of, truth_of
from tests.torture.clients.locks import FENCED, LEASE_TTL_S
from tests.torture.history import Record

# What the leader's clock may be ahead of the client's in one lease's time, by the declared drift.
_SLACK = 0.002
_ENDED_S = 30.0
_NOT_FOUND = "lease_not_found"


def check_leases(records: Sequence[Record]) -> list[str]:
    """After each renewal that was acknowledged a lease lives for its time, counted from when the
    renewal was asked for."""
    complaints = []
    by_lease: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        if record.kind != "lease":
            continue
        if record.op == "grant":
            if record.outcome == "ok":
                by_lease[record.out].append(record)
        else:
            lease = record.args[0] if record.args else int(record.key.removeprefix("e/"))
            by_lease[lease].append(record)
    for lease, found in by_lease.items():
        sure_ns = 0
        has_key = revoked = False
        for record in sorted(found, key=lambda r: r.called_ns):
            alive = record.returned_ns < sure_ns and not revoked
            if record.code == _NOT_FOUND and alive:
                complaints.append(f"lease {lease} ended before its time: {record}")
            is_seen_gone = record.op == "see" and record.outcome == "ok" and not record.out
            if is_seen_gone and alive and has_key:
                complaints.append(f"the key of lease {lease} ended before its time: {record}")
            if record.op in ("grant", "keep") and record.outcome == "ok":
                sure_ns = record.called_ns + int(LEASE_TTL_S * 1e9 * (1 - _SLACK))
            has_key = has_key or (record.op == "put_leased" and record.outcome == "ok")
            revoked = revoked or (record.op == "revoke" and record.outcome != "no")
    return complaints + _left_over(records, by_lease)


def _left_over(records: Sequence[Record], by_lease: dict[int, list[Record]]) -> list[str]:
    """Keys whose leases nobody has kept alive for long."""
    end = end_of(records)
    if end is None:
        return []
    complaints = []
    for key in (item[0] for item in end.out if item[0].startswith("e/")):
        last_ns = max((r.returned_ns for r in by_lease[int(key[2:])]), default=0)
        if end.called_ns - last_ns > (LEASE_TTL_S + _ENDED_S) * 1e9:
            complaints.append(f"{key} is there long after its lease was kept alive last")
    return complaints


def check_locks(records: Sequence[Record]) -> list[str]:
    complaints = []
    held: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.kind == "lock" and record.op == "held":
            held[record.key].append(record)
    for name, holders in held.items():
        holders.sort(key=lambda r: r.called_ns)
        latest = holders[0]
        for holder in holders[1:]:
            if holder.called_ns < latest.returned_ns:
                complaints.append(f"two hold the lock {name} at once: {latest} and {holder}")
            if holder.args[0] <= latest.args[0]:
                complaints.append(f"the token of {name} goes back: {latest} and {holder}")
            latest = max(latest, holder, key=lambda r: r.returned_ns)
    return complaints + _old_tokens(records)


def _old_tokens(records: Sequence[Record]) -> list[str]:
    """What is protected holds the token of whoever wrote it, known from those who wrote and from
    watches, which see late writes of nobody, too: it never goes back."""
    written: dict[str, dict[int, int]] = defaultdict(dict)
    for record in records:
        if record.kind == "lock" and record.op == "fenced" and record.out:
            written[record.key][record.revision] = record.args[0]
    for revision, events in truth_of(records).events.items():
        for kind, key, value in events:
            if kind == "put" and key.startswith(FENCED):
                written[key.removeprefix(FENCED)][revision] = int(value)
    return [
        f"a write with an old token of {name} had an effect: {token} at revision {revision}, "
        f"behind {before}"
        for name, tokens in written.items()
        for (_, before), (revision, token) in pairwise(sorted(tokens.items()))
        if token < before
    ]
