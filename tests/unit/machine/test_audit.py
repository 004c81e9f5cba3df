"""What a state comes to: the same for equal states, another one when a single bit has turned."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from raft_agent.consensus.batch import Batch, BatchKind, encode
from raft_agent.consensus.verdict import Verdict, encode_verdict
from raft_agent.machine.audit import StateDigest
from raft_agent.machine.blocks import Section, encode_block
from raft_agent.machine.commands import (
    GrantLease,
    InSession,
    Once,
    OpenSession,
    Put,
    PutLeased,
    SendMessage,
)
from raft_agent.machine.machine import Machine
from raft_agent.machine.results import StatesDisputed, WriteDone
from tests.unit.machine.batches import apply, digest_of


def audit(machine: Machine, verdict: Verdict | None = None) -> None:
    payload = b"" if verdict is None else encode_verdict(verdict)
    machine.apply(encode(BatchKind.AUDIT, machine.last_applied + 1, 1, 1, payload))


def full_machine() -> Machine:
    """One with an item in each section."""
    machine = Machine()
    audit(machine)
    apply(machine, OpenSession(5_000), GrantLease(5_000), Put("a", b"value"), Put("b", b"other"))
    apply(machine, PutLeased("c", b"leased", -1, 3), SendMessage("text", "n1"))
    apply(machine, InSession(2, 1, 0, Put("d", b"once")), Once(bytes(16), 3_000, Put("e", b"1")))
    return machine


def snapshot_of(machine: Machine) -> list[bytes]:
    view = machine.begin_snapshot()
    blocks = []
    while (portion := view.next_items()) is not None:
        blocks.append(encode_block(portion))
    view.close()
    return blocks


def digest(machine: Machine) -> int:
    return digest_of(machine.begin_snapshot())


def test_it_does_not_matter_where_the_state_was_cut_into_blocks() -> None:
    machine = full_machine()
    for number in range(70):
        apply(machine, Put(f"k{number:02}", b"v" * number))
    found = set()
    for limit in (1, 7, 16, 500):
        state, view = StateDigest(), machine.begin_snapshot()
        while (portion := view.next_items(limit)) is not None:
            state.add(portion, encode_block(portion))
        view.close()
        found.add(state.value)
    assert found == {digest(machine)}


def test_it_is_that_of_the_moment_at_which_the_view_began() -> None:
    machine = full_machine()
    before, view = digest(machine), machine.begin_snapshot()
    apply(machine, Put("a", b"later"), SendMessage("more", "n1"))
    assert digest_of(view) == before
    assert digest(machine) != before


def test_a_state_from_a_snapshot_comes_to_the_same() -> None:
    machine = full_machine()
    restored = Machine.restore(snapshot_of(machine))
    assert digest(restored) == digest(machine)
    for one in (machine, restored):
        apply(one, Put("a", b"further"))
        audit(one)
    assert digest(restored) == digest(machine)


def spoil_value(machine: Machine) -> None:
    entry = machine._entries["a"]
    machine._entries["a"] = msgspec.structs.replace(entry, value=b"walue")


def spoil_revision(machine: Machine) -> None:
    entry = machine._entries["a"]
    machine._entries["a"] = msgspec.structs.replace(entry, revision=entry.revision ^ 4)


def spoil_message(machine: Machine) -> None:
    message = machine._message_log._last[0]
    machine._message_log._last[0] = msgspec.structs.replace(message, text="uext")


def spoil_history(machine: Machine) -> None:
    change = machine._history._last[0]
    machine._history._last[0] = msgspec.structs.replace(change, value=b"walue")


def spoil_session(machine: Machine) -> None:
    machine._sessions._sessions[2].acked_below ^= 1


def spoil_result(machine: Machine) -> None:
    results = machine._sessions._sessions[2].results
    results[1] = msgspec.structs.replace(results[1], result=WriteDone(99))


def spoil_lease(machine: Machine) -> None:
    machine.leases._leases[3].ttl_ms ^= 1


def spoil_binding(machine: Machine) -> None:
    machine.leases._leases[3].keys = {}


def spoil_revision_of_the_store(machine: Machine) -> None:
    machine.revision ^= 1


def lose_a_key(machine: Machine) -> None:
    machine._index.remove("a")


def spoil_what_was_applied(machine: Machine) -> None:
    assert machine._trail is not None
    machine._trail.applied ^= 1


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_value,
        spoil_revision,
        spoil_message,
        spoil_history,
        spoil_session,
        spoil_result,
        spoil_lease,
        spoil_binding,
        spoil_revision_of_the_store,
        lose_a_key,
        spoil_what_was_applied,
    ],
)
def test_a_bit_that_turns_anywhere_in_the_state_changes_it(
    spoil: Callable[[Machine], None],
) -> None:
    machine = full_machine()
    before = digest(machine)
    spoil(machine)
    assert digest(machine) != before


def test_who_once_applied_something_else_never_comes_to_the_same_again() -> None:
    """Although the key that it had wrong was written over since."""
    right, wrong = full_machine(), full_machine()
    assert digest(right) == digest(wrong)
    apply(right, Put("x", b"1"))
    wrong_put = encode(BatchKind.COMMANDS, wrong.last_applied + 1, 1, 1, b"\0" * 8 + b"\x90")
    wrong.apply(wrong_put)
    wrong.revision = right.revision
    for machine in (right, wrong):
        apply(machine, Put("x", b"2"))
    assert right._trail is not None
    assert wrong._trail is not None
    assert right._trail.applied != wrong._trail.applied


def test_a_trail_is_in_the_snapshot_from_the_first_audit_on() -> None:
    machine = Machine()
    apply(machine, Put("a", b"1"))
    assert Section.TRAIL not in dict(sections(machine))
    audit(machine)
    assert sections(machine)[-2:] == [(Section.TRAIL, 1), (Section.END, len(Section))]


def sections(machine: Machine) -> list[tuple[Section, int]]:
    """Each block's section, and how many items it has."""
    decoded = (msgspec.msgpack.decode(block) for block in snapshot_of(machine))
    return [(Section(section), len(items)) for section, items in decoded]


def test_while_states_are_disputed_no_command_changes_anything() -> None:
    machine = full_machine()
    audit(machine, Verdict(machine.last_applied, 0, agreed=False))
    disputed = machine.disputed_index
    revision = machine.revision
    assert disputed == machine.last_applied - 1
    assert apply(machine, Put("a", b"x"), SendMessage("y", "n1")) == [StatesDisputed(disputed)] * 2
    restored = Machine.restore(snapshot_of(machine))
    assert restored.disputed_index == disputed
    assert machine.revision == revision
    audit(machine, Verdict(machine.last_applied, 7, agreed=True))
    assert machine.disputed_index == 0
    assert apply(machine, Put("a", b"x")) == [WriteDone(revision + 1)]


def test_an_audit_entry_answers_nobody() -> None:
    machine = Machine()
    batch: Batch = encode(BatchKind.AUDIT, 1, 1, 1, b"")
    assert machine.apply(batch) is None
    assert machine.last_applied == 1
