"""A snapshot says in which version it is written, and goes on from where the log had come to."""

from __future__ import annotations

import pytest

from raft_agent.machine.audit import Trail
from raft_agent.machine.blocks import Section, SnapshotError, encode_block
from raft_agent.machine.commands import (
    Command,
    GrantLease,
    InSession,
    KeepLease,
    Once,
    Put,
    RevokeLease,
)
from raft_agent.machine.machine import Machine
from raft_agent.machine.snapshot import survey
from tests.golden.make import SNAPSHOT_INDEX, machine_at
from tests.unit.machine.batches import apply


def blocks() -> dict[Section, bytes]:
    """The golden snapshot's; each section of it is one block."""
    view = machine_at(SNAPSHOT_INDEX).begin_snapshot()
    made = {}
    while (portion := view.next_items()) is not None:
        assert portion.section not in made
        made[portion.section] = encode_block(portion)
    view.close()
    return made


def test_each_section_is_in_the_golden_snapshot() -> None:
    # What an audit entry begins has a test of its own: test_audit.py.
    assert set(blocks()) == set(Section) - {Section.TRAIL}


def test_a_restored_machine_answers_like_the_one_that_was_saved() -> None:
    machine = machine_at(SNAPSHOT_INDEX)
    restored = Machine.restore(blocks().values())
    further: list[Command] = [
        KeepLease(6),
        Once(bytes(range(16)), 1_700_000_060_000, GrantLease(9_000)),
        InSession(3, 1, 1, RevokeLease(6)),
        InSession(3, 2, 2, Put("a", b"anew", 1)),
        RevokeLease(6),
    ]
    assert apply(restored, *further) == apply(machine, *further)
    assert restored.digest() == machine.digest()


@pytest.mark.parametrize("left_out", [Section.KEYS, Section.LEASES])
def test_a_lease_of_what_is_not_there_is_refused(left_out: Section) -> None:
    without = {section: block for section, block in blocks().items() if section != left_out}
    with pytest.raises(SnapshotError, match="binds the key"):
        Machine.restore(without.values())


@pytest.mark.parametrize("has_trail", [True, False])
def test_what_a_snapshot_holds_is_counted_before_the_first_comparison_of_states_too(
    has_trail: bool,
) -> None:
    machine = machine_at(SNAPSHOT_INDEX)
    if has_trail:
        machine._trail = Trail()
    view = machine.begin_snapshot()
    found = [encode_block(portion) for portion in iter(view.next_items, None)]
    view.close()
    header, counts = survey(found)
    assert header.last_applied == SNAPSHOT_INDEX
    assert counts[Section.KEYS] == machine.key_count()
    with pytest.raises(SnapshotError, match="should hold"):
        survey([block for block in found if block != blocks()[Section.KEYS]])
