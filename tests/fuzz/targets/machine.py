"""Commands, as a leader's log holds them: never an exception, and the same everywhere."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from raft_agent.consensus import batch as batches
from raft_agent.consensus.batch import BatchKind
from raft_agent.machine.commands import (
    CloseSession,
    Command,
    Delete,
    ExpireLease,
    GrantLease,
    InSession,
    KeepLease,
    KeepSession,
    Once,
    OpenSession,
    Put,
    PutLeased,
    RaiseVersion,
    RevokeLease,
    SendMessage,
    SetSetting,
    Transact,
    encode_command,
    encode_commands,
    join_commands,
)
from raft_agent.machine.machine import Machine
from raft_agent.machine.transactions import (
    Compare,
    DeleteKey,
    DeletePrefix,
    GetKey,
    ListKeys,
    PutKey,
    Relation,
)
from raft_agent.machine.transactions import (
    Target as What,
)
from raft_agent.versions import VersionError
from tests.fuzz.target import Target
from tests.unit.machine.batches import split_commands

_COMPARE = Compare(What.VALUE, "a", Relation.EQUAL, b"1")
_EVERY: tuple[Command, ...] = (
    Put("a", b"1"),
    Put("b/c", b"2", 0),
    SendMessage("Hello ✓", "node-01"),
    OpenSession(5_000),
    GrantLease(5_000),
    PutLeased("b/d", b"3", -1, 5),
    InSession(4, 1, 0, Put("s", b"1")),
    InSession(4, 1, 0, Put("s", b"1")),
    Once(bytes(range(16)), 4_000, Delete("b/c")),
    Transact([_COMPARE], [PutKey("a", b"2"), DeletePrefix("b/")], [GetKey("a")]),
    Transact([], [PutKey("t", b"2", 5), DeleteKey("a"), ListKeys("", 3), GetKey("t")], []),
    KeepLease(5),
    KeepSession(4),
    SetSetting("messages_keep", 10),
    SetSetting("nonsense", 10),
    ExpireLease(5, 9_999),
    RaiseVersion(1),
    Put("b/e", b"4"),
    Delete("b/e", 99),
)
_LAST: tuple[Command, ...] = (RevokeLease(5), CloseSession(4), Delete("a"), Put("z", b""))


def _apply(machine: Machine, payload: bytes, count: int) -> object:
    batch = batches.encode(BatchKind.COMMANDS, machine.last_applied + 1, 1, count, payload)
    return machine.apply(batch)


def exercise(machine: Machine, twin: Machine) -> None:
    """Both go on, and stay the same; and so does one that is restored from a snapshot."""
    for commands in (_EVERY, _LAST):
        time_ms = machine.time_ms + 1
        payload = join_commands(time_ms, len(commands), [encode_commands(commands)])
        assert _apply(machine, payload, len(commands)) == _apply(twin, payload, len(commands))
    assert machine.digest() == twin.digest()
    machine.list("", 100)
    machine.messages(10)
    machine.changes_since(0)


def apply_commands(data: bytes) -> None:
    """A payload of any bytes gives a result for each entry, on every node the same; but one that
    raises the version beyond what this program knows ends it, on every node alike."""
    if not data:
        return
    count, payload = data[0] + 1, data[1:]
    commands = split_commands(memoryview(payload)[8:] if len(payload) < 8 else payload, count)
    assert len(commands) == count
    machine, twin = full_machine(), full_machine()
    try:
        results = _apply(machine, payload, count)
    except VersionError as ended:
        with pytest.raises(VersionError, match=re.escape(str(ended))):
            _apply(twin, payload, count)
        return
    assert isinstance(results, list)
    assert len(results) == count
    assert _apply(twin, payload, count) == results
    assert machine.digest() == twin.digest()
    from tests.fuzz.targets.storage import blocks_of  # noqa: PLC0415

    restored = Machine.restore(list(blocks_of(machine)))
    assert restored.digest() == machine.digest()
    exercise(restored, machine)


def full_machine() -> Machine:
    """One that has some of everything."""
    machine = Machine()
    _apply(machine, join_commands(1_000, len(_EVERY), [encode_commands(_EVERY)]), len(_EVERY))
    return machine


def _payloads() -> list[bytes]:
    def one(commands: Sequence[Command | bytes]) -> bytes:
        parts = [item if isinstance(item, bytes) else encode_command(item) for item in commands]
        return bytes((len(parts) - 1,)) + join_commands(2_000, len(parts), parts)

    return [
        *(one([command]) for command in (*_EVERY, *_LAST)),
        one([*_EVERY, *_LAST]),
        one([Put("a", b"1"), b"\x91\x63", b"\x01", Delete("a")]),
    ]


TARGETS = (Target("commands", apply_commands, _payloads),)
