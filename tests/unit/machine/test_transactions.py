"""Transactions: all of it at one revision, or nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft_agent.machine import sessions, transactions
from raft_agent.machine.commands import (
    GrantLease,
    InSession,
    Once,
    OpenSession,
    Put,
    PutLeased,
    Transact,
)
from raft_agent.machine.machine import Machine
from raft_agent.machine.results import (
    BadValue,
    FoundKey,
    LeaseGone,
    LimitReached,
    OperationDone,
    Repeated,
    TooMany,
    TransactionDone,
)
from raft_agent.machine.transactions import (
    Compare,
    DeleteKey,
    DeletePrefix,
    GetKey,
    ListKeys,
    PutKey,
    Relation,
    Target,
)
from raft_agent.machine.watches import KeyChange
from tests.unit.machine.batches import apply


def a_store() -> Machine:
    """a: revision 3, created at 1, version 2; b: revision 2; leased: revision 4, lease 4."""
    machine = Machine()
    apply(machine, Put("a", b"1"), Put("b", b"2"), Put("a", b"3"))
    apply(machine, GrantLease(5000), PutLeased("leased", b"", -1, 4))
    return machine


def transact(machine: Machine, *then: object, compares: tuple[Compare, ...] = ()) -> object:
    command = Transact(list(compares), list(then), [])  # type: ignore[arg-type]
    return apply(machine, command)[0]


def test_all_changes_of_a_transaction_have_one_revision() -> None:
    machine = a_store()
    seen: list[list[KeyChange]] = []
    machine.watches.watch_prefix("", seen.append)
    result = transact(machine, PutKey("new", b"n"), DeleteKey("a"), PutKey("b", b"4"))
    done = [OperationDone(), OperationDone(deleted=1), OperationDone()]
    assert result == TransactionDone(True, 5, done)
    assert seen == [
        [
            KeyChange("new", b"n", 5, 6),
            KeyChange("a", None, 5, 6),
            KeyChange("b", b"4", 5, 6),
        ]
    ]
    assert machine.get("b").version == 2  # type: ignore[union-attr]
    assert machine.revision == 5
    assert machine.changes_since(5) == seen[0]
    assert machine.changes_since(5, 1) == seen[0]


def test_what_changes_nothing_takes_no_revision() -> None:
    machine = a_store()
    result = transact(machine, GetKey("a"), DeleteKey("none"), DeletePrefix("none/"))
    assert isinstance(result, TransactionDone)
    assert (result.revision, machine.revision) == (4, 4)


def test_reads_see_the_changes_before_them() -> None:
    machine = a_store()
    result = transact(
        machine, GetKey("b"), PutKey("b", b"5"), GetKey("b"), DeleteKey("a"), ListKeys("", 1)
    )
    assert isinstance(result, TransactionDone)
    assert [item.keys for item in result.results] == [
        [FoundKey("b", b"2", 2, 2, 1)],
        [],
        [FoundKey("b", b"5", 5, 2, 2)],
        [],
        [FoundKey("b", b"5", 5, 2, 2)],
    ]
    assert [item.more for item in result.results] == [False, False, False, False, True]


def test_a_read_says_which_lease_a_key_ends_with() -> None:
    result = transact(a_store(), GetKey("leased"))
    assert isinstance(result, TransactionDone)
    assert result.results[0].keys == [FoundKey("leased", b"", 4, 4, 1, 4)]


@pytest.mark.parametrize(
    ("compare", "holds"),
    [
        (Compare(Target.VALUE, "a", Relation.EQUAL, b"3"), True),
        (Compare(Target.VALUE, "a", Relation.EQUAL, b"1"), False),
        (Compare(Target.VALUE, "a", Relation.NOT_EQUAL, b"1"), True),
        (Compare(Target.VALUE, "a", Relation.LESS, b"4"), True),
        (Compare(Target.VALUE, "a", Relation.GREATER, b"4"), False),
        (Compare(Target.VALUE, "none", Relation.EQUAL, b""), False),
        (Compare(Target.VALUE, "none", Relation.NOT_EQUAL, b""), True),
        (Compare(Target.VALUE, "none", Relation.LESS, b"x"), False),
        (Compare(Target.REVISION, "a", Relation.EQUAL, 3), True),
        (Compare(Target.REVISION, "none", Relation.EQUAL, 0), True),
        (Compare(Target.REVISION, "a", Relation.GREATER, 3), False),
        (Compare(Target.CREATE_REVISION, "a", Relation.EQUAL, 1), True),
        (Compare(Target.VERSION, "a", Relation.LESS, 3), True),
        (Compare(Target.VERSION, "a", Relation.NOT_EQUAL, 2), False),
        (Compare(Target.LEASE, "leased", Relation.EQUAL, 4), True),
        (Compare(Target.LEASE, "a", Relation.EQUAL, 0), True),
    ],
    ids=str,
)
def test_compares(compare: Compare, holds: bool) -> None:
    result = transact(a_store(), GetKey("a"), compares=(compare,))
    assert isinstance(result, TransactionDone)
    assert result.succeeded is holds


def test_one_compare_that_does_not_hold_leads_to_the_else() -> None:
    machine = a_store()
    compares = [
        Compare(Target.REVISION, "a", Relation.EQUAL, 3),
        Compare(Target.REVISION, "b", Relation.EQUAL, 1),
    ]
    command = Transact(compares, [PutKey("then", b"")], [PutKey("else", b"")])
    assert apply(machine, command) == [TransactionDone(False, 5, [OperationDone()])]
    assert machine.get("then") is None
    assert machine.get("else") is not None


def test_a_lease_that_is_gone_stops_all_of_it() -> None:
    machine = a_store()
    assert transact(machine, PutKey("x", b""), PutKey("y", b"", 9)) == LeaseGone(9)
    assert machine.get("x") is None
    assert machine.revision == 4


@pytest.mark.parametrize(
    ("then", "reason"),
    [
        ([PutKey("", b"")], "empty"),
        ([PutKey("k" * 5000, b"")], "4096"),
        ([DeletePrefix("")], "every key"),
        ([PutKey("k", b""), DeleteKey("k")], "changed twice"),
        ([PutKey("k/1", b""), DeletePrefix("k/")], "changed twice"),
        ([DeletePrefix("k/"), DeletePrefix("k/1")], "changed twice"),
        ([DeletePrefix("k/"), DeletePrefix("k/")], "changed twice"),
        ([PutKey("k", bytes(transactions.MAX_BYTES))], str(transactions.MAX_BYTES)),
        ([GetKey("k")] * (transactions.MAX_OPERATIONS + 1), "limit is 128"),
        ([], "does nothing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_no_store_would_do_is_refused(then: list[object], reason: str) -> None:
    machine = a_store()
    result = transact(machine, *then)
    assert isinstance(result, BadValue)
    assert reason in result.reason
    assert machine.revision == 4


@pytest.mark.parametrize(
    "compare",
    [
        Compare(Target.VALUE, "a", Relation.EQUAL, 3),
        Compare(Target.REVISION, "a", Relation.EQUAL, b"3"),
        Compare(Target.REVISION, "", Relation.EQUAL, 3),
    ],
)
def test_compares_that_mean_nothing_are_refused(compare: Compare) -> None:
    assert isinstance(transact(a_store(), GetKey("a"), compares=(compare,)), BadValue)


def test_more_than_can_be_done_in_one_moment_is_refused_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transactions, "MAX_CHANGES", 2)
    monkeypatch.setattr(transactions, "MAX_READ_BYTES", 100)
    machine = a_store()
    apply(machine, Put("p/1", b""), Put("p/2", b""), Put("p/3", b"x" * 50))
    assert isinstance(transact(machine, DeletePrefix("p/"), PutKey("z", b"")), LimitReached)
    assert isinstance(transact(machine, PutKey("z", b""), GetKey("p/3")), LimitReached)
    assert isinstance(transact(machine, PutKey("z", b""), ListKeys("p/")), LimitReached)
    assert machine.get("z") is None
    assert isinstance(transact(machine, PutKey("z", b""), GetKey("p/1")), TransactionDone)


def test_a_transaction_that_is_sent_again_is_answered_with_what_it_read_first() -> None:
    machine = a_store()
    command = Once(bytes(16), 3000, Transact([], [GetKey("a"), PutKey("a", b"4")], []))
    [first] = apply(machine, command)
    assert apply(machine, command) == [Repeated(6, 1, first)]  # type: ignore[arg-type]
    assert machine.get("a").version == 3  # type: ignore[union-attr]


def test_what_is_remembered_of_reads_is_limited_and_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_READ_BYTES", 150)
    machine = a_store()
    apply(machine, OpenSession(5000), Put("big", b"x" * 100))
    read = Transact([], [GetKey("big")], [])

    def in_session(number: int, acked: int = 0) -> object:
        return apply(machine, InSession(6, number, acked, read))[0]

    def once(number: int, time_ms: int = 1000) -> object:
        return apply(machine, Once(bytes([number] * 16), 3000, read), time_ms=time_ms)[0]

    for ask in (in_session, once):
        assert isinstance(ask(1), TransactionDone)
        assert isinstance(ask(2), TooMany)
    assert isinstance(in_session(3, acked=2), TransactionDone)
    assert isinstance(once(3, time_ms=3001), object)
    late = Once(bytes([9] * 16), 9000, read)
    assert isinstance(apply(machine, late, time_ms=3002)[0], TransactionDone)
    assert isinstance(apply(machine, InSession(6, 4, 0, Put("k", b"")))[0], object)


keys = st.sampled_from(["a", "ab", "abc", "b", "c"])
operation = st.one_of(
    st.builds(PutKey, keys, st.binary(max_size=1), st.sampled_from([0, 1])),
    st.builds(DeleteKey, keys),
    st.builds(DeletePrefix, keys),
    st.builds(GetKey, keys),
    st.builds(ListKeys, keys, st.integers(0, 2)),
)


@given(st.lists(st.lists(operation, max_size=4), max_size=12))
def test_a_revision_has_one_change_of_each_key_and_history_says_all_of_it(
    all_operations: list[list[transactions.Operation]],
) -> None:
    machine = Machine()
    apply(machine, GrantLease(5000))
    expected: dict[str, bytes] = {}
    for operations in all_operations:
        before = machine.revision
        apply(machine, Transact([], operations, []))
        changes = machine.changes_since(before + 1)
        assert {change.revision for change in changes} <= {before + 1}
        assert len({change.key for change in changes}) == len(changes)
        for change in changes:
            if change.value is None:
                del expected[change.key]
            else:
                expected[change.key] = change.value
        assert {entry.key: entry.value for entry in machine.list()[0]} == expected
        leased = {key for lease in machine.leases for key in lease.keys}
        assert leased == set(machine.leases.lease_of) <= set(expected)
