"""Exported maps as the log decides them: what may stand there, and what a map's bytes are."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft_agent.machine import exports
from raft_agent.machine.commands import (
    AddExport,
    Delete,
    GrantLease,
    Put,
    PutLeased,
    RemoveExport,
    RevokeLease,
    Transact,
)
from raft_agent.machine.exports import Export, MapChange
from raft_agent.machine.machine import Machine
from raft_agent.machine.results import (
    BadValue,
    ConditionFailed,
    LeaseGranted,
    LimitReached,
    TransactionDone,
    WriteDone,
)
from raft_agent.machine.transactions import DeleteKey, DeletePrefix, PutKey
from tests.unit.machine.batches import apply

DENY = Export("fw/deny/", "deny_v4", "lpm_trie", "ipv4_prefix", "u32", 3)
PORTS = Export("ports/", "ports", "hash", "u32", "bytes[4]", 2, with_revision=True)
NET = "fw/deny/203.0.113.0/24"


def with_deny() -> Machine:
    machine = Machine()
    assert apply(machine, AddExport(DENY)) == [WriteDone(0)]
    machine.exports.track(wanted=True)
    return machine


def refused(result: object) -> str:
    assert isinstance(result, BadValue), result
    return result.reason


def test_a_key_below_an_exported_prefix_has_to_fit() -> None:
    machine = with_deny()
    bad_key, bad_value, fits, elsewhere = apply(
        machine,
        Put("fw/deny/203.0.113.5/24", b"1"),
        Put(NET, b"yes"),
        Put(NET, b"1"),
        Put("fw/allow/anything", b"yes"),
    )
    assert "has to be written as 203.0.113.0/24" in refused(bad_key)
    assert "deny_v4" in refused(bad_value)
    assert [fits, elsewhere] == [WriteDone(1), WriteDone(2)]
    assert machine.get("fw/deny/203.0.113.5/24") is None
    assert "does not fit" in refused(apply(machine, Put("fw/deny/", b"1"))[0])


def test_what_happens_to_the_keys_is_told_in_the_maps_bytes() -> None:
    machine = with_deny()
    apply(machine, Put(NET, b"1"), Put("other", b""), Put(NET, b"258"), Delete(NET))
    key = b"\x18\0\0\0\xcb\0\x71\0"
    assert machine.exports.changes == [
        MapChange("deny_v4", key, b"\x01\0\0\0"),
        MapChange("deny_v4", key, b"\x02\x01\0\0"),
        MapChange("deny_v4", key, None),
    ]
    machine.exports.track(wanted=False)
    apply(machine, Put(NET, b"1"))
    assert machine.exports.changes == []


def test_a_value_can_carry_its_revision() -> None:
    machine = Machine()
    apply(machine, AddExport(PORTS))
    machine.exports.track(wanted=True)
    apply(machine, Put("a", b""), Put("ports/80", b"web"))
    (change,) = machine.exports.changes
    assert change.key == b"\x50\0\0\0"
    assert change.value == b"web\0" + bytes(4) + (2).to_bytes(8, "little")
    shape = machine.exports.get("ports")
    assert shape is not None
    assert shape.value_size == 16


def test_a_map_that_is_full_takes_no_new_key() -> None:
    machine = with_deny()
    *fit, full, known = apply(
        machine,
        *[Put(f"fw/deny/10.0.{n}.0/24", b"1") for n in range(3)],
        Put("fw/deny/10.0.9.0/24", b"1"),
        Put("fw/deny/10.0.0.0/24", b"2"),
    )
    assert [type(result) for result in fit] == [WriteDone] * 3
    assert isinstance(full, LimitReached)
    assert full.limit == 3
    assert isinstance(known, WriteDone)
    gone, room = apply(machine, Delete("fw/deny/10.0.0.0/24"), Put("fw/deny/10.0.9.0/24", b"1"))
    assert isinstance(gone, WriteDone)
    assert isinstance(room, WriteDone)


def transact(machine: Machine, *operations: object) -> object:
    return apply(machine, Transact([], list(operations), []))[0]  # type: ignore[arg-type]


def test_a_transaction_with_a_key_that_does_not_fit_changes_nothing() -> None:
    machine = with_deny()
    result = transact(machine, PutKey("a", b""), PutKey(NET, b"x"))
    assert "deny_v4" in refused(result)
    assert machine.revision == 0
    assert isinstance(transact(machine, PutKey("a", b""), PutKey(NET, b"1")), TransactionDone)


def test_what_a_transaction_removes_makes_room_for_what_it_puts() -> None:
    machine = with_deny()
    apply(machine, *[Put(f"fw/deny/10.0.{n}.0/24", b"1") for n in range(3)])
    one, other = PutKey("fw/deny/10.1.0.0/24", b"1"), PutKey("fw/deny/10.2.0.0/24", b"1")
    assert isinstance(transact(machine, one), LimitReached)
    nothing_goes = transact(machine, one, DeleteKey("fw/deny/10.0.7.0/24"))
    assert isinstance(nothing_goes, LimitReached)
    assert isinstance(transact(machine, one, DeleteKey("fw/deny/10.0.0.0/24")), TransactionDone)
    assert isinstance(transact(machine, other, one, DeletePrefix("fw/deny/10.0.")), TransactionDone)
    assert machine.exports.count("deny_v4") == 2


def test_leased_keys_have_to_fit_and_leave_the_map_with_their_lease() -> None:
    machine = with_deny()
    (granted,) = apply(machine, GrantLease(5000))
    assert isinstance(granted, LeaseGranted)
    bad, fits = apply(
        machine, PutLeased(NET, b"x", -1, granted.lease), PutLeased(NET, b"1", -1, granted.lease)
    )
    assert "deny_v4" in refused(bad)
    assert isinstance(fits, WriteDone)
    apply(machine, RevokeLease(granted.lease))
    assert [change.value is None for change in machine.exports.changes] == [False, True]
    assert machine.exports.count("deny_v4") == 0


def test_keys_that_are_there_and_do_not_fit_keep_a_map_from_being_exported() -> None:
    machine = Machine()
    apply(machine, *[Put(f"fw/deny/bad-{n}", b"1") for n in range(7)], Put(NET, b"1"))
    reason = refused(apply(machine, AddExport(DENY))[0])
    assert "fw/deny/bad-0" in reason
    assert "and 2 more keys" in reason
    assert len(machine.exports) == 0
    apply(machine, *[Delete(f"fw/deny/bad-{n}") for n in range(7)])
    assert isinstance(apply(machine, AddExport(DENY))[0], WriteDone)
    assert machine.exports.count("deny_v4") == 1


def test_more_keys_than_max_entries_keep_a_map_from_being_exported() -> None:
    machine = Machine()
    apply(machine, *[Put(f"fw/deny/10.0.{n}.0/24", b"1") for n in range(4)])
    assert "more than max_entries" in refused(apply(machine, AddExport(DENY))[0])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"map": "Deny"}, "no map's name"),
        ({"map": "a" * 33}, "no map's name"),
        ({"prefix": ""}, "A prefix"),
        ({"kind": "array"}, "kind"),
        ({"kind": "hash"}, "no prefix type"),
        ({"key": "ipv4"}, "ipv4_prefix or ipv6_prefix"),
        ({"key": "u16"}, "A key is one of"),
        ({"value": "ipv4"}, "A value is one of"),
        ({"value": "bytes[1000]"}, "1 to 256"),
        ({"max_entries": 0}, "max_entries"),
        ({"max_entries": exports.MAX_ENTRIES + 1}, "max_entries"),
        ({"group": "no group"}, "group's name"),
        ({"prefix": "fw/"}, "keys in common"),
        ({"prefix": "ports/tcp/"}, "keys in common"),
        ({"map": "ports"}, "exported otherwise"),
    ],
)
def test_an_export_that_can_not_be_is_refused(change: dict[str, object], says: str) -> None:
    machine = Machine()
    apply(machine, AddExport(PORTS))
    if "fw/" in change.values():
        apply(machine, AddExport(DENY))
        change = {**change, "map": "other"}
    before = machine.digest()
    assert says in refused(apply(machine, AddExport(msgspec.structs.replace(DENY, **change)))[0])
    assert len(machine.exports) == (2 if "other" in change.values() else 1)
    assert machine.digest() != before  # of last_applied alone


def test_an_export_that_is_asked_for_again_stays() -> None:
    machine = with_deny()
    index = machine.exports.declared_index
    assert apply(machine, AddExport(DENY)) == [WriteDone(0)]
    assert machine.exports.declared_index == index


def test_a_map_that_is_exported_no_longer_leaves_its_keys_alone() -> None:
    machine = with_deny()
    apply(machine, Put(NET, b"1"))
    done, again, free = apply(
        machine, RemoveExport("deny_v4"), RemoveExport("deny_v4"), Put(NET, b"anything")
    )
    assert done == WriteDone(1, 1)
    assert again == ConditionFailed(0)
    assert free == WriteDone(2)
    assert machine.exports.was_declared("deny_v4")


def test_another_layout_under_a_name_has_another_version() -> None:
    machine = Machine()

    def version_of(export: Export) -> int:
        apply(machine, RemoveExport("deny_v4"))
        assert isinstance(apply(machine, AddExport(export))[0], WriteDone)
        shape = machine.exports.get("deny_v4")
        assert shape is not None
        return shape.version

    assert version_of(DENY) == 1
    assert version_of(msgspec.structs.replace(DENY, prefix="x/", group="readers")) == 1
    assert version_of(msgspec.structs.replace(DENY, value="u64")) == 2
    assert version_of(msgspec.structs.replace(DENY, value="u64", with_revision=True)) == 3
    assert version_of(msgspec.structs.replace(DENY, max_entries=99)) == 4
    assert version_of(DENY) == 5


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["10.0.0.0/8", "10.1.0.0/16", "::/0", "10.2.0.0/16", "10.3.0.0/16"]),
            st.sampled_from([b"1", b"2", b"x", None]),
        ),
        max_size=30,
    )
)
def test_the_maps_bytes_that_were_told_are_those_of_the_store(
    steps: list[tuple[str, bytes | None]],
) -> None:
    machine = with_deny()
    for suffix, value in steps:
        key = f"fw/deny/{suffix}"
        apply(machine, Delete(key) if value is None else Put(key, value))
    told: dict[bytes, bytes] = {}
    for change in machine.exports.changes:
        if change.value is None:
            del told[change.key]
        else:
            told[change.key] = change.value
    shape = machine.exports.get("deny_v4")
    assert shape is not None
    entries, _ = machine.list("fw/deny/")
    assert told == {
        shape.encode_key(entry.key): shape.encode_value(entry.value, entry.revision)
        for entry in entries
    }
    assert machine.exports.count("deny_v4") == len(told) <= DENY.max_entries
    assert {shape.text_of(key) for key in told} == {entry.key for entry in entries}
