"""Registers and transactions: linearizable, object by object; stale reads: as old as they say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from tests.sim.linearizability import UNKNOWN, KeyValueModel, Model, Operation, check
from tests.sim.store_model import StoreModel
from tests.torture.checks.truth import end_of
from tests.torture.clients.transactions import KEYS
from tests.torture.history import Record

CONFLICT = "conflict"
# What clocks may be apart by in what they say of a moment that is seconds ago, and rounding.
_AGE_SLACK = 1.002
_AGE_SLACK_NS = 5_000_000
_MAX_STEPS = 3_000_000


def check_registers(records: Sequence[Record]) -> list[str]:
    """Linearizable reads and reads by lease are held to the same: neither may be old."""
    history = [op for record in records if (op := _register(record)) is not None]
    end = end_of(records)
    if end is not None:
        last = {key: (value, revision) for key, value, revision, _ in end.out}
        for key in sorted({str(operation.key) for operation in history}):
            value, revision = last.get(key, (None, 0))
            hint = 2 * revision + 1 if revision else 0
            history.append(Operation(key, ("get",), value, end.called_ns, end.returned_ns, hint))
    return _search(history, KeyValueModel())


def _register(record: Record) -> Operation | None:
    if record.kind != "register" or record.op == "get_stale":
        return None
    action: tuple[Any, ...]
    output: Any = None
    match record.op:
        case "get" | "get_linearizable" | "get_lease":
            if record.outcome != "ok":
                return None
            value, revision, _ = record.out
            hint = 2 * revision + 1 if revision else 0
            return _operation(record, ("get",), value, hint)
        case "put":
            action = ("put", record.args[0])
        case "delete":
            action, output = ("delete",), record.out
        case "cas":
            action, output = ("cas", *record.args), True
            if record.code == CONFLICT:
                return _operation(record, action, False, 0)
    if record.outcome == "no":
        return None
    return _operation(record, action, output, 2 * record.revision)


def _operation(record: Record, action: tuple[Any, ...], output: Any, hint: int) -> Operation:
    if record.outcome == "unknown":
        return Operation(record.key, action, UNKNOWN, record.called_ns, None)
    return Operation(record.key, action, output, record.called_ns, record.returned_ns, hint)


def check_transactions(records: Sequence[Record]) -> list[str]:
    """The keys of a group are one object."""
    history = []
    for record in records:
        if record.kind == "txn" and record.outcome != "no":
            compares, then, otherwise = (_tuples(part) for part in record.args)
            output = None if record.out is None else (record.out[0], _tuples(record.out[1]))
            writes = record.outcome == "ok" and any(
                step[0] != "get" for step in (then if record.out[0] else otherwise)
            )
            hint = 2 * record.revision + (0 if writes else 1)
            action = ("txn", compares, then, otherwise)
            history.append(_operation(record, action, output, hint))
    end = end_of(records)
    if end is not None:
        last = {key: value for key, value, _, _ in end.out}
        reads = tuple(("get", number) for number in range(KEYS))
        for group in sorted({str(operation.key) for operation in history}):
            values = tuple(last.get(f"{group}/{number}") for number in range(KEYS))
            action = ("txn", (), reads, ())
            history.append(
                Operation(group, action, (True, values), end.called_ns, end.returned_ns, 1 << 62)
            )
    return _search(history, StoreModel(KEYS))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _search(history: list[Operation], model: Model) -> list[str]:
    by_key: dict[Any, list[Operation]] = defaultdict(list)
    for operation in history:
        by_key[operation.key].append(operation)
    return [
        str(found)
        for operations in by_key.values()
        if not (found := check(operations, model, max_steps=_MAX_STEPS))
    ]


def check_stale_reads(records: Sequence[Record]) -> list[str]:
    """A stale read says how old it may be: whatever was acknowledged before that must be in it."""
    writes: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.kind == "register" and record.op in ("put", "cas", "delete"):
            writes[record.key].append(record)
    complaints = []
    for read in records:
        if read.op != "get_stale" or read.outcome != "ok" or read.out[2] is None:
            continue
        value, revision, age_ms = read.out
        bound = read.called_ns - int(age_ms * 1e6 * _AGE_SLACK) - _AGE_SLACK_NS
        missed = [
            w
            for w in writes[read.key]
            if w.outcome == "ok" and w.returned_ns < bound and w.revision > (revision or 0)
            if w.op != "delete" or w.out
        ]
        if value is None and missed and _may_be_deleted(writes[read.key], missed, read):
            continue
        if missed:
            complaints.append(
                f"a stale read of {read.key} says it is {age_ms} ms old at most and gives "
                f"{value!r} of revision {revision}, but {missed[-1]} was acknowledged before"
            )
    return complaints


def _may_be_deleted(writes: Sequence[Record], missed: Sequence[Record], read: Record) -> bool:
    """Whether the key may have gone again behind all that the read lacks: a deletion is no older
    than the last of that, or nobody knows what became of it."""
    latest = max(missed, key=lambda write: write.revision)
    return any(
        write.outcome == "unknown" or (write.out and write.revision >= latest.revision)
        for write in writes
        if write.op == "delete" and write.outcome != "no" and write.called_ns < read.returned_ns
    )
