"""What a client does with transactions and leases, on keys of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raft_agent.machine.commands import (
    Delete,
    GrantLease,
    KeepLease,
    Put,
    PutLeased,
    RevokeLease,
    StateCommand,
    Transact,
    encode_command,
)
from raft_agent.machine.entry import Entry
from raft_agent.machine.results import (
    ConditionFailed,
    LeaseGone,
    LeaseGranted,
    LeaseKept,
    TransactionDone,
    WriteDone,
)
from raft_agent.machine.transactions import (
    Compare,
    DeleteKey,
    GetKey,
    Operation,
    PutKey,
    Relation,
    Target,
)
from tests.sim.calls import Call
from tests.sim.store_log import results_of
from tests.sim.store_model import GONE

if TYPE_CHECKING:
    from tests.sim.client import Client

KEYS = 5
_KINDS = ("get", "put", "delete", "cas", "txn", "grant", "keep", "revoke", "leased")
_WEIGHTS = (4, 1, 1, 1, 5, 2, 4, 1, 4)


class StoreClient:
    """One client's. It knows keys as it saw them last, and the leases that it was granted."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._options = client.oracle.cluster.options.clients
        self._rng = client.oracle.cluster.rng(f"client/{client.number}/store")
        self._known: dict[int, Entry | None] = {}
        self._leases: list[int] = []
        self._last_gone = 0
        self._count = 0

    def wants_a_turn(self) -> bool:
        """Whether the next call is one of these."""
        return self._options.store > 0 and self._rng.random() < self._options.store

    def next_call(self) -> Call:
        rng = self._rng
        kind = rng.choices(_KINDS, _WEIGHTS)[0]
        key = rng.randrange(KEYS)
        if kind == "get":
            lease = rng.random() < self._options.lease
            return Call(self._client, f"t{key}", ("get", key), b"", forward=False, lease=lease)
        if kind in ("keep", "revoke", "leased") and not self._leases:
            kind = "grant"
        if kind == "keep":
            lease_id = rng.choice(self._leases)
            command = encode_command(KeepLease(lease_id))
            forward = self._client.forwards()
            return Call(self._client, "t", ("keep", lease_id), command, forward=forward)
        if kind == "txn":
            return self._txn()
        action, command = self._write(kind, key)
        return self._client.write("t", action, command)

    def _write(self, kind: str, key: int) -> tuple[tuple[Any, ...], StateCommand]:
        name, value = f"t{key}", self._value()
        match kind:
            case "grant":
                return ("grant",), GrantLease(self._options.lease_ttl_ms)
            case "revoke":
                lease_id = self._lease()
                return ("revoke", lease_id), RevokeLease(lease_id)
            case "leased":
                lease_id = self._lease()
                return ("put", key, value, lease_id), PutLeased(name, value, -1, lease_id)
            case "delete":
                return ("delete", key), Delete(name)
            case "cas":
                known = self._known.get(key)
                expected = known.value if known else None
                put = Put(name, value, known.revision if known else 0)
                return ("cas", key, expected, value), put
        return ("put", key, value, 0), Put(name, value)

    def _lease(self) -> int:
        """One of its leases, or now and then one that it knows to be gone."""
        if self._last_gone and self._rng.random() < 0.1:
            return self._last_gone
        return self._rng.choice(self._leases)

    def _value(self) -> bytes:
        self._count += 1
        return f"{self._client.number}.t{self._count}".encode()

    # --- transactions

    def _txn(self) -> Call:
        compares = tuple(self._compare(key) for key in self._some_keys())
        then, otherwise = self._operations(), self._operations()
        command = Transact(
            [_compare(*compare) for compare in compares],
            [_operation(operation) for operation in then],
            [_operation(operation) for operation in otherwise],
        )
        return self._client.write("t", ("txn", compares, then, otherwise), command)

    def _some_keys(self) -> list[int]:
        return self._rng.sample(range(KEYS), self._rng.randrange(1, 4))

    def _compare(self, key: int) -> tuple[int, Any]:
        known = self._known.get(key)
        return key, known.value if known else None

    def _operations(self) -> tuple[tuple[Any, ...], ...]:
        """Each key is changed once at most, and may be read before and after."""
        rng = self._rng
        operations: list[tuple[Any, ...]] = []
        for key in self._some_keys():
            kind = rng.choices(("put", "delete", "get"), (4, 1, 2))[0]
            if kind == "put":
                lease = self._lease() if self._leases and rng.random() < 0.6 else 0
                operations.append(("put", key, self._value(), lease))
            else:
                operations.append((kind, key))
        operations.append(("get", rng.randrange(KEYS)))
        return tuple(operations)

    # --- answers

    def take_in(self, call: Call, result: Any) -> bool:
        """Note what came back; False when that is no answer to this call."""
        if isinstance(result, LeaseGone):
            self._forget(result.lease)
            call.output = GONE
            return call.action[0] in ("put", "txn", "keep", "revoke")
        match call.action, result:
            case ("get", key), entry if entry is None or isinstance(entry, Entry):
                self._known[key] = entry
                call.output = entry.value if entry else None
            case ("put", key, value, _), WriteDone(revision=revision):
                self._known[key] = Entry(f"t{key}", value, revision, 0, 0)
                call.output = None
            case ("delete", key), WriteDone(deleted=deleted):
                self._known[key] = None
                call.output = deleted == 1
            case ("cas", key, _, value), WriteDone(revision=revision):
                self._known[key] = Entry(f"t{key}", value, revision, 0, 0)
                call.output = True
            case ("cas", key, *_), ConditionFailed():
                self._known.pop(key, None)
                call.output = False
            case ("txn", _, then, otherwise), TransactionDone():
                self._take_in_txn(call, then if result.succeeded else otherwise, result)
            case ("grant",), LeaseGranted(lease=lease):
                self._leases = [*self._leases, lease][-2:]
                call.output = lease
            case ("keep", _), LeaseKept():
                call.output = None
            case ("revoke", lease), WriteDone(deleted=deleted):
                self._forget(lease)
                call.output = deleted
            case _:
                return False
        return True

    def _forget(self, lease: int) -> None:
        self._last_gone = lease
        if lease in self._leases:
            self._leases.remove(lease)

    def _take_in_txn(
        self, call: Call, done: tuple[tuple[Any, ...], ...], result: TransactionDone
    ) -> None:
        self._client.oracle.cluster.seen["txn_then" if result.succeeded else "txn_else"] += 1
        for operation in done:
            if operation[0] == "put":
                self._known[operation[1]] = Entry("", operation[2], result.revision, 0, 0)
            elif operation[0] == "delete":
                self._known[operation[1]] = None
        call.output = (result.succeeded, results_of(done, result))


def _compare(key: int, value: bytes | None) -> Compare:
    if value is None:
        return Compare(Target.CREATE_REVISION, f"t{key}", Relation.EQUAL, 0)
    return Compare(Target.VALUE, f"t{key}", Relation.EQUAL, value)


def _operation(operation: tuple[Any, ...]) -> Operation:
    key = f"t{operation[1]}"
    if operation[0] == "put":
        return PutKey(key, operation[2], operation[3])
    return DeleteKey(key) if operation[0] == "delete" else GetKey(key)
