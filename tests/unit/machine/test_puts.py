"""Puts in a row: the same state, answers and news as one by one, whatever stands between them."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from raft_agent.machine.commands import (
    AddExport,
    Command,
    Delete,
    GrantLease,
    InSession,
    OpenSession,
    Put,
    PutLeased,
    SendMessage,
    SetSetting,
)
from raft_agent.machine.exports import Export
from raft_agent.machine.machine import Machine
from raft_agent.machine.watches import KeyChange
from tests.unit.machine.batches import apply, digest_of

_KEYS = ("a", "b", "c/1", "c/2", "d")
_COMMANDS = st.one_of(
    st.builds(Put, st.sampled_from(_KEYS), st.binary(max_size=3)),
    st.builds(Put, st.sampled_from(_KEYS), st.binary(max_size=3), st.integers(0, 4)),
    st.builds(Delete, st.sampled_from(_KEYS)),
    st.sampled_from(
        (
            OpenSession(60_000),
            InSession(1, 1, 0, Put("a", b"once")),
            GrantLease(10_000),
            PutLeased("b", b"leased", -1, 1),
            SendMessage("text", "node-01"),
            SetSetting("history_keep", 2),
            AddExport(Export("c/", "counters", "hash", "u32", "bytes[4]", 2)),
        )
    ),
)


class _OneByOne(Machine):
    _takes_put_rows = False  # type: ignore[assignment]


def _watched(machine: Machine, batches: Sequence[Sequence[Command]]) -> list[object]:
    """The results of all batches and what a watch of everything was told."""
    told: list[list[KeyChange]] = []
    machine.watches.watch_prefix("", told.append)
    return [*(apply(machine, *batch) for batch in batches), told]


@settings(deadline=None)
@given(st.lists(st.lists(_COMMANDS, min_size=1, max_size=12), max_size=4))
def test_a_row_of_puts_leads_where_its_puts_lead(batches: list[list[Command]]) -> None:
    machine, one_by_one = Machine(), _OneByOne()
    assert _watched(machine, batches) == _watched(one_by_one, batches)
    assert machine.changes_since(0) == one_by_one.changes_since(0)
    assert digest_of(machine.begin_snapshot()) == digest_of(one_by_one.begin_snapshot())


def test_a_snapshot_keeps_what_a_row_of_puts_changes() -> None:
    machine, same = Machine(), Machine()
    for each in (machine, same):
        apply(each, *(Put(key, b"before") for key in _KEYS))
    view = machine.begin_snapshot()
    apply(machine, *(Put(key, b"after") for key in _KEYS))
    assert digest_of(view) == digest_of(same.begin_snapshot())


def test_a_row_of_puts_ends_the_leases_of_its_keys() -> None:
    machine = Machine()
    apply(machine, GrantLease(10_000), PutLeased("a", b"leased", -1, 1), Put("a", b"plain"))
    assert machine.lease_of("a") == 0
