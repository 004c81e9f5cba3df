"""Leases end by the log alone, and their keys with them, all at one revision."""

from __future__ import annotations

import pytest

from raft_agent.machine import leases
from raft_agent.machine.commands import (
    Delete,
    ExpireLease,
    GrantLease,
    InSession,
    KeepLease,
    Once,
    OpenSession,
    Put,
    PutLeased,
    RevokeLease,
    Transact,
)
from raft_agent.machine.machine import Machine
from raft_agent.machine.results import (
    BadValue,
    ConditionFailed,
    LeaseGone,
    LeaseGranted,
    LeaseKept,
    LimitReached,
    Repeated,
    WriteDone,
)
from raft_agent.machine.transactions import DeletePrefix, PutKey
from raft_agent.machine.watches import KeyChange
from tests.unit.machine.batches import apply


def machine_with_lease(*keys: str, ttl_ms: int = 5000) -> Machine:
    machine = Machine()
    assert apply(machine, GrantLease(ttl_ms)) == [LeaseGranted(1, ttl_ms)]
    for key in keys:
        apply(machine, PutLeased(key, b"v", -1, 1))
    return machine


def test_a_lease_ends_at_one_revision_with_all_its_keys_in_byte_order() -> None:
    machine = machine_with_lease("b", "a", "c")
    changes: list[list[KeyChange]] = []
    machine.watches.watch_prefix("", changes.append)
    apply(machine, Put("other", b""))
    assert apply(machine, RevokeLease(1)) == [WriteDone(5, 3)]
    assert changes[1] == [KeyChange(key, None, 5, 6, 1) for key in ("a", "b", "c")]
    assert [entry.key for entry in machine.list()[0]] == ["other"]
    assert len(machine.leases) == 0


def test_a_lease_without_keys_ends_without_a_revision() -> None:
    machine = machine_with_lease()
    apply(machine, Put("k", b""))
    assert apply(machine, RevokeLease(1)) == [WriteDone(1, 0)]
    assert apply(machine, Put("k", b"")) == [WriteDone(2)]


def test_no_time_of_the_log_ends_a_lease() -> None:
    machine = machine_with_lease("k")
    apply(machine, Put("x", b""), time_ms=10**12)
    assert machine.get("k") is not None
    assert apply(machine, KeepLease(1), time_ms=2 * 10**12) == [LeaseKept(1, 5000)]


def test_an_end_that_was_proposed_before_a_renewal_has_no_effect() -> None:
    machine = machine_with_lease("k")
    apply(machine, KeepLease(1))  # index 3
    assert apply(machine, ExpireLease(1, 1)) == [LeaseKept(1, 5000)]
    assert machine.get("k") is not None
    assert apply(machine, ExpireLease(1, 3)) == [WriteDone(2, 1)]
    assert machine.get("k") is None


@pytest.mark.parametrize(
    "command",
    [KeepLease(7), RevokeLease(7), ExpireLease(7, 7), PutLeased("k", b"", -1, 7)],
    ids=lambda command: type(command).__name__,
)
def test_what_is_said_of_a_lease_that_is_not_there_changes_nothing(command: object) -> None:
    machine = machine_with_lease("k")
    state = machine.get("k"), machine.revision
    assert apply(machine, command) == [LeaseGone(7)]  # type: ignore[arg-type]
    assert (machine.get("k"), machine.revision) == state


def test_a_key_ends_with_the_lease_that_it_was_put_with_last() -> None:
    machine = machine_with_lease("plain", "other", "same", "deleted")
    apply(machine, GrantLease(5000))  # 6
    apply(machine, Put("plain", b"2"), PutLeased("other", b"2", -1, 6))
    apply(machine, PutLeased("same", b"2", -1, 1), Delete("deleted"), Put("deleted", b"2"))
    assert [machine.lease_of(key) for key in ("plain", "other", "same", "deleted")] == [0, 6, 1, 0]
    apply(machine, RevokeLease(1))
    assert [entry.key for entry in machine.list()[0]] == ["deleted", "other", "plain"]
    apply(machine, RevokeLease(6))
    assert [entry.key for entry in machine.list()[0]] == ["deleted", "plain"]


def test_a_condition_is_looked_at_before_the_lease() -> None:
    machine = machine_with_lease("k")
    assert apply(machine, PutLeased("k", b"", 0, 7)) == [ConditionFailed(1)]
    assert apply(machine, PutLeased("k", b"2", 1, 1)) == [WriteDone(2)]
    assert apply(machine, PutLeased("new", b"", 0, 1)) == [WriteDone(3)]


@pytest.mark.parametrize("ttl_ms", [0, leases.MIN_TTL_MS - 1, leases.MAX_TTL_MS + 1])
def test_a_time_that_is_too_short_or_too_long_is_refused(ttl_ms: int) -> None:
    [result] = apply(Machine(), GrantLease(ttl_ms))
    assert isinstance(result, BadValue)
    assert str(leases.MIN_TTL_MS) in result.reason


def test_there_is_a_limit_of_leases_and_of_the_keys_of_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leases, "MAX_LEASES", 1)
    monkeypatch.setattr(leases, "MAX_KEYS_OF_A_LEASE", 2)
    machine = machine_with_lease("a", "b")
    assert apply(machine, GrantLease(5000)) == [LimitReached("leases", 1)]
    assert apply(machine, PutLeased("c", b"", -1, 1)) == [LimitReached("keys of this lease", 2)]
    assert apply(machine, PutLeased("b", b"again", -1, 1)) == [WriteDone(3)]
    full = Transact([], [PutKey("c", b"", 1)], [])
    assert apply(machine, full) == [LimitReached("keys of this lease", 2)]
    apply(machine, Delete("a"))
    assert apply(machine, PutLeased("c", b"", -1, 1)) == [WriteDone(5)]


def test_a_transaction_takes_keys_from_their_lease_and_binds_others() -> None:
    machine = machine_with_lease("a", "x/1", "x/2")
    apply(machine, Transact([], [PutKey("a", b""), PutKey("b", b"", 1), DeletePrefix("x/")], []))
    assert (machine.lease_of("a"), machine.lease_of("b")) == (0, 1)
    assert apply(machine, RevokeLease(1)) == [WriteDone(5, 1)]
    assert [entry.key for entry in machine.list()[0]] == ["a"]


def test_a_lease_is_granted_once_and_ended_once_however_often_it_is_sent() -> None:
    machine = Machine()
    apply(machine, OpenSession(60_000))
    first = apply(machine, InSession(1, 1, 0, GrantLease(5000)))
    assert first == [LeaseGranted(2, 5000)]
    assert apply(machine, InSession(1, 1, 0, GrantLease(5000))) == [Repeated(2, 1, first[0])]
    once = Once(bytes(16), 3000, RevokeLease(2))
    assert apply(machine, once) == [WriteDone(0)]
    assert apply(machine, once) == [Repeated(4, 1, WriteDone(0))]


def test_who_tracks_hears_of_every_renewal_and_nobody_else_keeps_them() -> None:
    machine = machine_with_lease()
    assert machine.leases.renewed == []
    machine.leases.track(True)
    apply(machine, GrantLease(5000), KeepLease(1), KeepLease(99), KeepLease(2))
    assert machine.leases.renewed == [2, 1, 2]
    machine.leases.track(False)
    apply(machine, KeepLease(1))
    assert machine.leases.renewed == []
