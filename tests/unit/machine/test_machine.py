"""The state machine: the same batches, the same state and answers, on every node."""

from __future__ import annotations

import gc
import tracemalloc

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft_agent.consensus import batch
from raft_agent.consensus.batch import BatchKind
from raft_agent.machine.commands import Command, Delete, Put, SendMessage, join_commands
from raft_agent.machine.machine import (
    BadCommand,
    ConditionFailed,
    Entry,
    Machine,
    MachineError,
    WriteDone,
)
from tests.unit.machine.batches import apply, commands_batch


def test_a_put_makes_a_key_with_revisions_and_a_version() -> None:
    machine = Machine()
    results = apply(machine, Put("a", b"1"), Put("b", b"2"), Put("a", b"3"))
    assert results == [WriteDone(1), WriteDone(2), WriteDone(3)]
    assert machine.get("a") == Entry("a", b"3", revision=3, create_revision=1, version=2)
    assert machine.get("b") == Entry("b", b"2", revision=2, create_revision=2, version=1)
    assert machine.get("c") is None
    assert (machine.revision, machine.last_applied, machine.key_count()) == (3, 3, 2)


def test_a_delete_removes_the_key_and_its_history() -> None:
    machine = Machine()
    apply(machine, Put("a", b"1"), Put("a", b"2"))
    assert apply(machine, Delete("a")) == [WriteDone(3, deleted=1)]
    assert machine.get("a") is None
    assert machine.list() == ([], False)
    apply(machine, Put("a", b"new"))
    assert machine.get("a") == Entry("a", b"new", revision=4, create_revision=4, version=1)


def test_what_changes_nothing_makes_no_revision() -> None:
    machine = Machine()
    results = apply(machine, Put("a", b"1"), Delete("b"), SendMessage("hi", "n"), Put("a", b"", 9))
    assert results == [WriteDone(1), WriteDone(1), WriteDone(1), ConditionFailed(1)]
    assert machine.revision == 1


@pytest.mark.parametrize(
    ("command", "result"),
    [
        (Put("a", b"x", if_revision=2), WriteDone(3)),
        (Put("a", b"x", if_revision=1), ConditionFailed(2)),
        (Put("a", b"x", if_revision=0), ConditionFailed(2)),
        (Put("new", b"x", if_revision=0), WriteDone(3)),
        (Put("new", b"x", if_revision=2), ConditionFailed(0)),
        (Delete("a", if_revision=2), WriteDone(3, deleted=1)),
        (Delete("a", if_revision=1), ConditionFailed(2)),
        (Delete("new", if_revision=1), ConditionFailed(0)),
        (Delete("new", if_revision=0), WriteDone(2)),
        (Put("a", b"x", if_revision=-7), WriteDone(3)),
        (Delete("a", if_revision=-7), WriteDone(3, deleted=1)),
    ],
)
def test_a_condition_is_on_the_revision_of_the_key(command: Command, result: object) -> None:
    machine = Machine()
    apply(machine, Put("other", b""), Put("a", b"1"))
    assert apply(machine, command) == [result]


def test_a_listing_goes_on_after_the_last_key() -> None:
    machine = Machine()
    apply(machine, *(Put(key, b"") for key in ("b/2", "a", "b/1", "b/3", "b", "c", "b0")))

    def names(**query: object) -> tuple[list[str], bool]:
        entries, more = machine.list(**query)  # type: ignore[arg-type]
        return [entry.key for entry in entries], more

    assert names(prefix="b/") == (["b/1", "b/2", "b/3"], False)
    assert names(prefix="b/", limit=2) == (["b/1", "b/2"], True)
    assert names(prefix="b/", limit=2, after="b/2") == (["b/3"], False)
    assert names(prefix="b/", limit=3) == (["b/1", "b/2", "b/3"], False)
    assert names(prefix="b/", after="a") == (["b/1", "b/2", "b/3"], False)
    assert names(prefix="b/", after="c") == ([], False)
    assert names(after="b/3") == (["b0", "c"], False)
    assert names(limit=0) == ([], True)
    assert names(prefix="x") == ([], False)


def test_a_listing_stops_at_the_key_that_reaches_its_bytes() -> None:
    machine = Machine()
    apply(machine, *(Put(f"k{number}", b"x" * 498) for number in range(5)))
    entries, more = machine.list(max_bytes=700)
    assert ([entry.key for entry in entries], more) == (["k0", "k1"], True)
    assert machine.list(after="k3", max_bytes=1)[1] is False


def test_a_listing_of_many_small_keys_keeps_to_its_bytes_as_they_are_encoded() -> None:
    machine = Machine()
    apply(machine, *(Put(f"k{number:03}", b"") for number in range(1000)))
    entries, more = machine.list(max_bytes=10_000)
    assert more
    assert 5_000 < len(msgspec.msgpack.encode(entries)) < 15_000


def test_messages_have_the_leaders_time_and_come_newest_first() -> None:
    machine = Machine()
    apply(machine, SendMessage("one", "n1"), SendMessage("two", "n2"), time_ms=500)
    newest = machine.messages(1)[0]
    assert (newest.index, newest.time_ms, newest.node, newest.text) == (2, 500, "n2", "two")
    assert [message.text for message in machine.messages(10)] == ["two", "one"]
    assert machine.messages(0) == []
    assert [message.text for message in machine.messages_after(1)] == ["two"]


def test_time_never_goes_back_when_another_clock_leads() -> None:
    machine = Machine()
    for time_ms in (5000, 4000, 6000):
        apply(machine, SendMessage("", ""), time_ms=time_ms)
    assert [message.time_ms for message in machine.messages(3)] == [6000, 5000, 5000]


def test_only_the_newest_messages_are_kept() -> None:
    machine = Machine(messages_keep=10)
    for number in range(3000):
        apply(machine, SendMessage(str(number), ""))
        assert machine.messages_dropped == max(number + 1 - 10, 0)
    assert [message.text for message in machine.messages(99)] == [
        str(number) for number in range(2999, 2989, -1)
    ]
    assert [message.index for message in machine.messages_after(0)] == list(range(2991, 3001))
    assert [message.index for message in machine.messages_after(2995, 2)] == [2996, 2997]


def test_a_machine_may_keep_no_messages_at_all() -> None:
    machine = Machine(messages_keep=0)
    apply(machine, SendMessage("gone", ""))
    assert (machine.messages(5), machine.messages_after(0)) == ([], [])
    assert machine.messages_dropped == 1


@pytest.mark.parametrize("kind", [BatchKind.NOOP, BatchKind.CONFIGURATION])
def test_batches_without_commands_only_move_the_index(kind: BatchKind) -> None:
    machine = Machine()
    assert machine.apply(batch.encode(kind, 1, 7, 1, b"whatever")) is None
    assert (machine.last_applied, machine.last_applied_term, machine.revision) == (1, 7, 0)


@pytest.mark.parametrize("first_index", [1, 2, 4])
def test_a_batch_that_does_not_follow_the_last_one_stops_the_node(first_index: int) -> None:
    machine = Machine()
    apply(machine, Put("a", b""), Put("b", b""))
    before = machine.digest()
    with pytest.raises(MachineError, match=f"starts at index {first_index}, but 2 was the last"):
        machine.apply(commands_batch(first_index, [Put("c", b"")]))
    assert machine.digest() == before


def test_a_command_that_nobody_understands_changes_nothing_anywhere() -> None:
    machine = Machine()
    results = apply(machine, Put("a", b"1"), b"\x91\x63", b"\x00", Put("b", b"2"))
    assert results == [WriteDone(1), BadCommand(), BadCommand(), WriteDone(2)]
    assert machine.last_applied == 4


def test_a_payload_that_is_cut_short_makes_bad_commands_of_all() -> None:
    whole = join_commands(1, 3, [b"\x93\x02\xa1k\xff"] * 3)
    for cut in range(len(whole)):
        machine = Machine()
        results = machine.apply(batch.encode(BatchKind.COMMANDS, 1, 1, 3, whole[:cut]))
        assert results is not None
        assert results == [BadCommand()] * 3
        assert machine.last_applied == 3


@settings(max_examples=200)
@given(st.binary(max_size=80), st.integers(1, 5))
def test_no_payload_makes_apply_raise_or_two_machines_differ(payload: bytes, count: int) -> None:
    one, other = Machine(), Machine()
    garbage = batch.encode(BatchKind.COMMANDS, 1, 1, count, payload)
    results = one.apply(garbage)
    assert results is not None
    assert len(results) == count
    assert other.apply(garbage) == results
    assert one.digest() == other.digest()


keys = st.sampled_from(["", "a", "ab", "b", "é"])
revisions = st.integers(-1, 6)
histories = st.lists(
    st.one_of(
        st.builds(Put, keys, st.binary(max_size=2), revisions),
        st.builds(Delete, keys, revisions),
        st.builds(SendMessage, st.text(max_size=2), st.just("n")),
        st.sampled_from([b"\xc0", b"\x91\x63", b"\x93\x02\xa1\xff\xff"]),
    ),
    min_size=1,
    max_size=30,
)


@given(histories, st.data())
def test_where_batches_are_cut_makes_no_difference(
    history: list[Command | bytes], data: st.DataObject
) -> None:
    whole, cut = Machine(), Machine()
    expected = apply(whole, *history)
    at = data.draw(st.integers(0, len(history) - 1))
    results = apply(cut, *history[:at]) if at else []
    results += apply(cut, *history[at:])
    assert results == expected
    assert cut.digest() == whole.digest()


@given(histories)
def test_the_store_is_a_dictionary_with_revisions(history: list[Command | bytes]) -> None:
    machine = Machine()
    model: dict[str, tuple[bytes, int]] = {}
    for command in history:
        result = apply(machine, command)[0]
        if isinstance(result, WriteDone):
            if isinstance(command, Put):
                model[command.key] = (command.value, result.revision)
            elif isinstance(command, Delete):
                assert result.deleted == int(model.pop(command.key, None) is not None)
    entries, more = machine.list()
    assert not more
    found = {entry.key: (entry.value, entry.revision) for entry in entries}
    assert found == model
    assert [entry.key for entry in entries] == sorted(model)
    assert {key: machine.get(key) for key in model} == {entry.key: entry for entry in entries}


@pytest.mark.parametrize(
    "change",
    [
        [Put("a", b"2")],
        [Put("a", b"1"), Put("a", b"1")],
        [Put("a", b"1"), Delete("x")],
        [Put("b", b"1")],
        [Put("a", b"1"), SendMessage("t", "n")],
        [],
    ],
)
def test_states_that_differ_have_different_digests(change: list[Command]) -> None:
    machine, other = Machine(), Machine()
    apply(machine, Put("a", b"1"))
    if change:
        apply(other, *change)
    assert machine.digest() != other.digest()


def test_the_time_is_part_of_the_state() -> None:
    machine, other = Machine(), Machine()
    apply(machine, Put("a", b""), time_ms=1)
    apply(other, Put("a", b""), time_ms=2)
    assert machine.digest() != other.digest()


def test_a_key_costs_less_than_400_bytes_besides_itself() -> None:
    count, value = 200_000, b"v" * 16
    batches = [
        commands_batch(first + 1, [Put(f"key/{first + n:08}", value) for n in range(1000)])
        for first in range(0, count, 1000)
    ]
    machine = Machine()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for item in batches:
            machine.apply(item)
        gc.collect()
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert machine.key_count() == count
    assert used / count - len("key/00000000") - len(value) < 400


def test_the_collector_does_not_walk_over_the_keys() -> None:
    machine = Machine()
    apply(machine, *(Put(str(number), b"") for number in range(100)))
    entry = machine.get("7")
    assert not gc.is_tracked(entry)
    assert not gc.is_tracked(machine._entries)
