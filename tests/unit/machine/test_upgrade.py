"""How the cluster version rises: the leader's steps, and what the machine makes of each version."""

from __future__ import annotations

import pytest

from raft_agent.machine.blocks import SnapshotVersionError, encode_block
from raft_agent.machine.commands import (
    Command,
    Delete,
    InSession,
    Put,
    RaiseVersion,
    Vocabulary,
)
from raft_agent.machine.machine import Machine
from raft_agent.machine.results import BadCommand, VersionDone, WriteDone
from raft_agent.machine.upgrade import Ask, Raise, Upgrade
from raft_agent.versions import VersionError, Versions, advise
from tests.unit.machine.batches import apply
from tests.version2 import VOCABULARY, MachineOfVersion2, PutOfVersion2

ONE, TWO = Versions(1, 1), Versions(1, 2)
MEMBERS = (1, 2, 3)


def test_nothing_rises_while_a_member_does_not_know_more() -> None:
    assert Upgrade().next_step(MEMBERS, {1: TWO, 2: TWO, 3: ONE}, 1) is None


def test_nothing_rises_while_nobody_can_say_what_a_member_knows() -> None:
    assert Upgrade().next_step(MEMBERS, {1: TWO, 2: TWO}, 1) is None
    assert Upgrade().next_step((), {}, 1) is None


def test_every_member_is_asked_before_the_version_rises() -> None:
    upgrade = Upgrade()
    known = dict.fromkeys(MEMBERS, TWO)
    assert upgrade.next_step(MEMBERS, known, 1) == Ask(2, MEMBERS)
    upgrade.promised(1, 2)
    upgrade.promised(3, 2)
    assert upgrade.next_step(MEMBERS, known, 1) == Ask(2, (2,))
    upgrade.promised(2, 2)
    assert upgrade.next_step(MEMBERS, known, 1) == Raise(2)
    assert upgrade.next_step(MEMBERS, known, 2) is None


def test_who_comes_in_meanwhile_is_asked_too() -> None:
    upgrade = Upgrade()
    for member in MEMBERS:
        upgrade.promised(member, 2)
    known = dict.fromkeys((*MEMBERS, 4), TWO)
    assert upgrade.next_step((*MEMBERS, 4), known, 1) == Ask(2, (4,))
    assert upgrade.next_step((*MEMBERS, 4), known | {4: ONE}, 1) is None


def test_a_promise_of_an_older_version_is_not_enough() -> None:
    upgrade = Upgrade()
    upgrade.promised(1, 2)
    assert upgrade.next_step((1,), {1: Versions(1, 3)}, 1) == Ask(3, (1,))


def test_the_version_rises_and_never_falls() -> None:
    machine = MachineOfVersion2()
    assert machine.version == 1
    assert apply(machine, RaiseVersion(2)) == [VersionDone(2)]
    assert apply(machine, RaiseVersion(1)) == [VersionDone(2)]
    assert machine.version == 2


def test_a_program_stops_where_the_log_goes_beyond_what_it_knows() -> None:
    machine = Machine()
    with pytest.raises(VersionError, match=r"of version 2, .* knows version 1\. Install a raft-ag"):
        apply(machine, RaiseVersion(2))
    assert machine.version == 1


def test_a_command_counts_for_nobody_before_its_version_is_in_force() -> None:
    """Whoever knows it and whoever does not must come to the same state."""
    old, new = Machine(), MachineOfVersion2()
    commands: list[Command] = [Put("a", b"1"), PutOfVersion2("a", b"2"), Delete("b")]  # type: ignore[list-item]
    expected = [WriteDone(1), BadCommand(), WriteDone(1)]
    assert apply(old, *commands) == apply(new, *commands) == expected
    assert old.digest() == new.digest()
    apply(new, RaiseVersion(2))
    assert apply(new, *commands) == [WriteDone(2), WriteDone(3), WriteDone(3)]


def test_it_is_in_force_from_the_batch_behind_the_one_that_raises_it() -> None:
    machine = MachineOfVersion2()
    later: Command = PutOfVersion2("a", b"2")  # type: ignore[assignment]
    assert apply(machine, RaiseVersion(2), later) == [VersionDone(2), BadCommand()]
    assert apply(machine, later) == [WriteDone(1)]


def test_a_leader_can_tell_which_version_its_commands_need() -> None:
    later = PutOfVersion2("a", b"2")
    assert VOCABULARY.needed([Put("a", b"1")]) == 1
    assert VOCABULARY.needed([Put("a", b"1"), later]) == 2  # type: ignore[list-item]
    assert VOCABULARY.needed([InSession(1, 1, 1, later)]) == 2  # type: ignore[arg-type]
    assert Vocabulary().needed([Put("a", b"1")]) == Vocabulary().needed([]) == 1


def test_the_version_is_a_part_of_the_state_and_of_its_snapshots() -> None:
    machine = MachineOfVersion2()
    before = machine.digest()
    apply(machine, RaiseVersion(2))
    assert machine.digest() != before
    view = machine.begin_snapshot()
    blocks = []
    while (portion := view.next_items()) is not None:
        blocks.append(encode_block(portion))
    restored = MachineOfVersion2.restore(blocks)
    assert (restored.version, restored.digest()) == (2, machine.digest())
    other = MachineOfVersion2()
    other.adopt(restored)
    assert other.version == 2
    with pytest.raises(SnapshotVersionError, match=r"of version 2, .* knows version 1") as caught:
        Machine.restore(blocks)
    assert caught.value.advice == advise(2, ONE)
