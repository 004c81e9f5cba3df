"""What a client does with exported maps: declares and removes them, and changes what they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raft_agent.machine.commands import (
    AddExport,
    Delete,
    Put,
    RemoveExport,
    Transact,
    encode_command,
)
from raft_agent.machine.exports import Export
from raft_agent.machine.results import (
    BadValue,
    ConditionFailed,
    LimitReached,
    TransactionDone,
    WriteDone,
)
from raft_agent.machine.transactions import DeleteKey, Operation, PutKey
from tests.sim.calls import Call

if TYPE_CHECKING:
    from tests.sim.client import Client

_MAX_ENTRIES = 5
# Names that come again with another prefix, another layout, or as they were.
EXPORTS = (
    Export("x0/", "m0", "hash", "u32", "u32", _MAX_ENTRIES),
    Export("x1/", "m0", "hash", "u32", "u32", _MAX_ENTRIES),
    Export("x1/", "m1", "hash", "u32", "bytes[4]", _MAX_ENTRIES, "", True),
    Export("x2/", "m2", "lpm_trie", "ipv4_prefix", "u32", _MAX_ENTRIES),
)
_KEYS = 8
_ANSWERS = (WriteDone, BadValue, ConditionFailed, LimitReached, TransactionDone)
_KINDS = ("put", "delete", "txn", "add", "remove", "unfit")
_WEIGHTS = (10, 4, 5, 3, 1, 1)


class ExportClient:
    """One client's part; its keys are of no other object, and nobody reads them but the maps."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._options = client.oracle.cluster.options.clients
        self._rng = client.oracle.cluster.rng(f"client/{client.number}/exports")

    def wants_a_turn(self) -> bool:
        """Whether the next call is one of these."""
        return self._options.exports > 0 and self._rng.random() < self._options.exports

    def next_call(self) -> Call:
        kind = self._rng.choices(_KINDS, _WEIGHTS)[0]
        match kind:
            case "add":
                command = encode_command(AddExport(self._rng.choice(EXPORTS)))
                return self._plain(command)
            case "remove":
                return self._plain(encode_command(RemoveExport(self._rng.choice(EXPORTS).map)))
            case "txn":
                return self._client.write("", ("export", kind), self._txn())
            case "delete":
                return self._client.write("", ("export", kind), Delete(self._key()))
            case "unfit":
                return self._client.write("", ("export", kind), Put("x0/no number", b"1"))
        return self._client.write("", ("export", kind), Put(self._key(), self._value()))

    def _plain(self, command: bytes) -> Call:
        """What nobody sends twice under one number."""
        forward = self._client.forwards()
        return Call(self._client, "", ("export",), command, forward=forward)

    def _txn(self) -> Transact:
        keys = sorted({self._key() for _ in range(self._rng.randrange(2, 5))})
        operations: list[Operation] = [
            PutKey(key, self._value(), 0) if self._rng.random() < 0.6 else DeleteKey(key)
            for key in keys
        ]
        return Transact([], operations, [])

    def _key(self) -> str:
        number = self._rng.randrange(_KEYS)
        prefix = self._rng.choice(("x0/", "x1/", "x2/"))
        return f"{prefix}10.{number}.0.0/16" if prefix == "x2/" else f"{prefix}{number}"

    def _value(self) -> bytes:
        return b"%d" % self._rng.randrange(1000)

    def take_in(self, call: Call, result: Any) -> bool:
        """Note what came back; False when that is no answer to this call."""
        call.output = None
        self._client.oracle.cluster.seen[f"export_{type(result).__name__}"] += 1
        return isinstance(result, _ANSWERS)
