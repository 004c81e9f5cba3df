"""What a later generation gives out begins behind what an earlier one may have given out."""

from __future__ import annotations

from raft_agent.consensus import batch
from raft_agent.consensus.batch import BatchKind
from raft_agent.consensus.membership import encode_configuration
from raft_agent.consensus.types import Configuration, Generation, Member
from raft_agent.machine.blocks import encode_block
from raft_agent.machine.commands import GrantLease, OpenSession, Put
from raft_agent.machine.machine import Machine
from raft_agent.machine.numbers import ROOM, floor_in, next_floor
from raft_agent.machine.results import LeaseGranted, SessionOpened, WriteDone
from tests.unit.machine.batches import apply

FLOOR = 1000


def configuration(floor: int = 0) -> Configuration:
    plain = Configuration("c1", (Member(1, "n1", "n1:1"),), (1,))
    if not floor:
        return plain
    return Configuration("c1", plain.members, (1,), generation=Generation(5, (0,), (), floor))


def begin_generation(machine: Machine, floor: int) -> None:
    payload = encode_configuration(configuration(floor))
    index = machine.last_applied + 1
    assert machine.apply(batch.encode(BatchKind.CONFIGURATION, index, 2, 1, payload)) is None


def test_revisions_sessions_and_leases_begin_behind_the_floor() -> None:
    machine = Machine()
    assert apply(machine, Put("k", b"1", -1)) == [WriteDone(1)]
    begin_generation(machine, FLOOR)
    assert apply(machine, Put("k", b"2", -1)) == [WriteDone(FLOOR + 1)]
    session, lease = apply(machine, OpenSession(5000), GrantLease(5000))
    assert session == SessionOpened(FLOOR + 4)
    assert lease == LeaseGranted(FLOOR + 5, 5000)


def test_what_is_there_keeps_its_revision() -> None:
    machine = Machine()
    apply(machine, Put("k", b"1", -1))
    begin_generation(machine, FLOOR)
    entry = machine.get("k")
    assert entry is not None
    assert entry.revision == 1


def test_changes_from_before_are_not_told_any_more() -> None:
    machine = Machine()
    apply(machine, Put("k", b"1", -1))
    begin_generation(machine, FLOOR)
    assert machine.compacted_revision == FLOOR
    apply(machine, Put("k", b"2", -1))
    assert [change.revision for change in machine.changes_since(1)] == [FLOOR + 1]


def test_every_later_configuration_of_the_generation_changes_nothing() -> None:
    machine = Machine()
    begin_generation(machine, FLOOR)
    apply(machine, Put("k", b"1", -1))
    begin_generation(machine, FLOOR)
    assert (machine.revision, machine.compacted_revision) == (FLOOR + 1, FLOOR)
    assert [change.revision for change in machine.changes_since(1)] == [FLOOR + 1]


def test_a_machine_from_a_snapshot_goes_on_behind_the_floor_of_its_configuration() -> None:
    machine = Machine()
    apply(machine, Put("k", b"1", -1))
    view = machine.begin_snapshot()
    blocks = []
    while (portion := view.next_items()) is not None:
        blocks.append(encode_block(portion))
    view.close()
    restored = Machine.restore(blocks)
    restored.begin_behind(FLOOR)
    begin_generation(machine, FLOOR)
    assert restored.revision == machine.revision == FLOOR
    assert apply(restored, GrantLease(5000)) == [LeaseGranted(FLOOR + 2, 5000)]


def test_a_configuration_without_a_generation_says_no_floor() -> None:
    assert floor_in(encode_configuration(configuration())) == 0
    assert floor_in(encode_configuration(configuration(FLOOR))) == FLOOR
    assert floor_in(b"\xc1") == 0
    assert floor_in(b"\x81\xa1a" + b"\x91" * 5000) == 0


def test_a_configuration_without_a_generation_is_written_as_before_there_were_any() -> None:
    assert b"generation" not in encode_configuration(configuration())


def test_the_next_floor_is_behind_all_that_can_have_been_given_out() -> None:
    # Each entry raises the revision by one at most; ids are the index behind the floor.
    assert next_floor(10, 0, 20, 50) == 50 + ROOM
    assert next_floor(2000, 1000, 20, 50) == 2030 + ROOM
    assert next_floor(ROOM, ROOM, 20, 50) > ROOM + 50
