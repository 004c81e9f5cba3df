"""Transactions: compares, and what is done when all of them hold, or else.

All of it happens at one revision of the store, or nothing does. A transaction holds no other one,
and changes no key twice, so that a revision has one change of each key.
"""

from __future__ import annotations

import enum
import operator
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeAlias

import msgspec

from raft_agent.machine.entry import Entry
from raft_agent.machine.results import (
    BadValue,
    FoundKey,
    LeaseGone,
    LimitReached,
    OperationDone,
    StateResult,
    TransactionDone,
)
from raft_agent.machine.store import Store

# Of compares, of operations, and of operations for when not all compares hold.
MAX_OPERATIONS = 128
# Keys and values that are written or compared, all together.
MAX_BYTES = 8 << 20
# What a transaction has read is remembered for a retry, so it may not be much.
MAX_READ_BYTES = 1 << 20
# Deletes by prefix: more would hold up everybody else.
MAX_CHANGES = 10_000
MAX_KEY_BYTES = 4096

# What an encoded key has about besides itself and its value.
_KEY_BYTES = 64

_Number = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class Target(enum.StrEnum):
    """What of a key is compared. Of one that does not exist all numbers are 0."""

    VALUE = "value"
    REVISION = "revision"
    CREATE_REVISION = "create_revision"
    VERSION = "version"
    LEASE = "lease"


class Relation(enum.StrEnum):
    EQUAL = "="
    NOT_EQUAL = "!="
    LESS = "<"
    GREATER = ">"


class Compare(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The `target` of `key` stands in this `relation` to `operand`: bytes for the value, which are
    compared byte by byte, else a number. A key that does not exist has no value: nothing but
    NOT_EQUAL holds of it.
    """

    target: Target
    key: str
    relation: Relation
    operand: _Number | bytes


class PutKey(msgspec.Struct, frozen=True, array_like=True, tag="put", forbid_unknown_fields=True):
    """Set a key, which ends with the lease `lease` (0: with none)."""

    key: str
    value: bytes
    lease: _Number = 0


class DeleteKey(
    msgspec.Struct, frozen=True, array_like=True, tag="delete", forbid_unknown_fields=True
):
    key: str


class DeletePrefix(
    msgspec.Struct, frozen=True, array_like=True, tag="delete_prefix", forbid_unknown_fields=True
):
    """Remove all keys that start with `prefix`, which is not empty."""

    prefix: str


class GetKey(msgspec.Struct, frozen=True, array_like=True, tag="get", forbid_unknown_fields=True):
    key: str


class ListKeys(
    msgspec.Struct, frozen=True, array_like=True, tag="list", forbid_unknown_fields=True
):
    """Keys that start with `prefix`, in byte order, at most `limit` (0: all)."""

    prefix: str
    limit: _Number = 0


Operation: TypeAlias = PutKey | DeleteKey | DeletePrefix | GetKey | ListKeys

_HOLDS: dict[Relation, Callable[[Any, Any], bool]] = {
    Relation.EQUAL: operator.eq,
    Relation.NOT_EQUAL: operator.ne,
    Relation.LESS: operator.lt,
    Relation.GREATER: operator.gt,
}


class TransactionError(ValueError):
    """The transaction can't be done, whatever the keys are; the text says why."""


def check(
    compares: Sequence[Compare], then: Sequence[Operation], otherwise: Sequence[Operation]
) -> None:
    """Raises TransactionError for what no store would do."""
    for what, items in (("compares", compares), ("then", then), ("else", otherwise)):
        if len(items) > MAX_OPERATIONS:
            raise TransactionError(
                f"{len(items)} operations in {what}; the limit is {MAX_OPERATIONS}"
            )
    if not then and not otherwise:
        raise TransactionError("A transaction without operations does nothing")
    size = 0
    for compare in compares:
        check_key(compare.key)
        _check_operand(compare)
        size += _operand_bytes(compare)
    for operations in (then, otherwise):
        size += sum(_check_operation(operation) for operation in operations)
        _check_changes(operations)
    if size > MAX_BYTES:
        raise TransactionError(
            f"{size} bytes of keys and values are over a transaction's limit of {MAX_BYTES}"
        )


def check_key(key: str) -> None:
    """Raises TransactionError for what no key can be."""
    if not key:
        raise TransactionError("A key can't be empty")
    # At most four bytes a character.
    if 4 * len(key) > MAX_KEY_BYTES and len(key.encode()) > MAX_KEY_BYTES:
        raise TransactionError(f"A key is over the limit of {MAX_KEY_BYTES} bytes")


def _check_operand(compare: Compare) -> None:
    is_bytes = isinstance(compare.operand, bytes)
    if is_bytes != (compare.target is Target.VALUE):
        wanted = "a value" if compare.target is Target.VALUE else "a number"
        raise TransactionError(f'The {compare.target} of "{compare.key}" is compared with {wanted}')


def _operand_bytes(compare: Compare) -> int:
    return len(compare.key) + (len(compare.operand) if isinstance(compare.operand, bytes) else 0)


def _check_operation(operation: Operation) -> int:
    """About how many bytes it has."""
    if isinstance(operation, DeletePrefix):
        if not operation.prefix:
            raise TransactionError("Delete by prefix needs one: an empty prefix is every key")
        return len(operation.prefix)
    if isinstance(operation, ListKeys):
        return len(operation.prefix)
    check_key(operation.key)
    return len(operation.key) + (len(operation.value) if isinstance(operation, PutKey) else 0)


def _check_changes(operations: Sequence[Operation]) -> None:
    # In their order: what the error names is part of the state, and must not depend on hashes.
    keys: dict[str, None] = {}
    for operation in operations:
        if isinstance(operation, PutKey | DeleteKey):
            if operation.key in keys:
                raise TransactionError(f'"{operation.key}" is changed twice in one transaction')
            keys[operation.key] = None
    prefixes = [item.prefix for item in operations if isinstance(item, DeletePrefix)]
    for place, prefix in enumerate(prefixes):
        others = [*keys, *prefixes[:place], *prefixes[place + 1 :]]
        twice = next((other for other in others if other.startswith(prefix)), None)
        if twice is not None:
            raise TransactionError(
                f'"{twice}" is changed twice in one transaction: by itself and by its prefix '
                f'"{prefix}"'
            )


class Transaction:
    """One that is being applied to `store` as the command at log index `index`."""

    def __init__(self, store: Store, index: int) -> None:
        self._store = store
        self._index = index
        self._revision = store.revision + 1
        self._read_bytes = 0

    def apply(
        self, compares: Sequence[Compare], then: Sequence[Operation], otherwise: Sequence[Operation]
    ) -> StateResult:
        try:
            check(compares, then, otherwise)
        except TransactionError as error:
            return BadValue(str(error))
        succeeded = all(self._holds(compare) for compare in compares)
        operations = then if succeeded else otherwise
        problem = self._problem(operations)
        if problem is not None:
            return problem
        results = [self._do(operation) for operation in operations]
        return TransactionDone(succeeded, self._store.revision, results)

    def _holds(self, compare: Compare) -> bool:
        entry = self._store.get(compare.key)
        target = compare.target
        found: object
        if target is Target.VALUE:
            if entry is None:
                return compare.relation is Relation.NOT_EQUAL
            found = entry.value
        elif target is Target.LEASE:
            found = self._store.leases.lease_of.get(compare.key, 0)
        else:
            found = 0 if entry is None else getattr(entry, target)
        return _HOLDS[compare.relation](found, compare.operand)

    def _problem(self, operations: Sequence[Operation]) -> StateResult | None:
        """Why these can't be done with the keys and leases as they are. Nothing is changed yet."""
        changes = 0
        joining: dict[int, int] = {}
        for operation in operations:
            if isinstance(operation, PutKey) and operation.lease:
                joining[operation.lease] = joining.get(operation.lease, 0) + 1
            elif isinstance(operation, DeletePrefix):
                changes += len(self._store.list(operation.prefix, MAX_CHANGES + 1)[0])
            elif isinstance(operation, GetKey | ListKeys):
                self._read_bytes += _size(self._read(operation)[0])
        for lease, count in joining.items():
            if lease not in self._store.leases:
                return LeaseGone(lease)
            limit = self._store.leases.room_of(lease)
            if count > limit:
                return self._store.leases.too_many_keys()
        if changes > MAX_CHANGES:
            return LimitReached("keys with these prefixes for one transaction", MAX_CHANGES)
        if self._read_bytes > MAX_READ_BYTES:
            return LimitReached("bytes to be read in one transaction", MAX_READ_BYTES)
        return self._refusal_of_exports(operations) if self._store.exports.prefixes else None

    def _refusal_of_exports(self, operations: Sequence[Operation]) -> StateResult | None:
        store = self._store
        puts = [(item.key, item.value) for item in operations if isinstance(item, PutKey)]
        gone = [item.key for item in operations if isinstance(item, DeleteKey)]
        for item in operations:
            if isinstance(item, DeletePrefix):
                gone += [entry.key for entry in store.list(item.prefix, MAX_CHANGES)[0]]
        return store.exports.refusal_of_all(
            puts, [key for key in gone if store.get(key) is not None], store
        )

    def _read(self, operation: GetKey | ListKeys) -> tuple[list[Entry], bool]:
        if isinstance(operation, GetKey):
            entry = self._store.get(operation.key)
            return ([] if entry is None else [entry]), False
        limit = operation.limit or 1 << 62
        return self._store.list(operation.prefix, limit, max_bytes=MAX_READ_BYTES + 1)

    def _do(self, operation: Operation) -> OperationDone:
        store = self._store
        if isinstance(operation, PutKey):
            self._change(operation.key, operation.value, operation.lease)
            return OperationDone()
        if isinstance(operation, DeleteKey):
            return OperationDone(deleted=self._delete([operation.key]))
        if isinstance(operation, DeletePrefix):
            entries, _ = store.list(operation.prefix, MAX_CHANGES)
            return OperationDone(deleted=self._delete([entry.key for entry in entries]))
        entries, more = self._read(operation)
        lease_of = store.leases.lease_of
        return OperationDone(
            more=more,
            keys=[
                FoundKey(
                    entry.key,
                    entry.value,
                    entry.revision,
                    entry.create_revision,
                    entry.version,
                    lease_of.get(entry.key, 0),
                )
                for entry in entries
            ],
        )

    def _delete(self, keys: Sequence[str]) -> int:
        there = [key for key in keys if self._store.get(key) is not None]
        for key in there:
            self._change(key, None, 0)
        return len(there)

    def _change(self, key: str, value: bytes | None, lease: int) -> None:
        self._store.change(key, value, revision=self._revision, index=self._index, lease=lease)


def written_bytes(operations: Sequence[Operation]) -> int:
    """About how much data of users these operations write."""
    return sum(len(item.value) for item in operations if isinstance(item, PutKey))


def read_bytes(result: object) -> int:
    """About how much of what a transaction has read is remembered with its `result`."""
    if type(result) is not TransactionDone:
        return 0
    return sum(
        len(key.key) + len(key.value) + _KEY_BYTES for done in result.results for key in done.keys
    )


def _size(entries: Sequence[Entry]) -> int:
    return sum(len(entry.key) + len(entry.value) + _KEY_BYTES for entry in entries)
