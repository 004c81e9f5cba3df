"""Snapshots: all of the state as it was at one moment, whatever is applied meanwhile."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raft_agent.machine import recent, sessions, snapshot, state
from raft_agent.machine.blocks import Portion, Section, SnapshotError, encode_block
from raft_agent.machine.commands import (
    AddExport,
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
    RemoveExport,
    RevokeLease,
    SendMessage,
    SetSetting,
    Transact,
)
from raft_agent.machine.exports import Export
from raft_agent.machine.machine import Machine
from raft_agent.machine.results import BadValue, LimitReached, WriteDone
from raft_agent.machine.snapshot import SnapshotView
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
from tests.unit.machine.batches import apply


@pytest.fixture(scope="module", autouse=True, params=[0, 10_000], ids=["piecemeal", "at_once"])
def keys_at_once(request: pytest.FixtureRequest) -> Iterator[None]:
    """Everything here holds whether keys are read little by little or all together."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "KEYS_AT_ONCE", request.param)
        yield


def blocks_of(view: SnapshotView, limit: int = 500) -> list[bytes]:
    blocks = []
    while (portion := view.next_items(limit)) is not None:
        blocks.append(encode_block(portion))
    view.close()
    return blocks


def full_machine() -> Machine:
    machine = Machine(messages_keep=3, history_keep=0)
    apply(machine, OpenSession(5000), Put("b", b"1"), Put("a", b"2"), Put("b", b"3"))
    apply(machine, InSession(1, 5, 2, Delete("x")), InSession(1, 3, 2, Put("c", b"", 9)))
    apply(machine, Once(bytes(16), 3000, SendMessage("first", "n")), OpenSession(1000))
    apply(machine, *(SendMessage(str(number), "n") for number in range(5)), time_ms=2000)
    apply(machine, SetSetting("history_keep", 7), Delete("a"), KeepSession(1), b"\x91\x63")
    return machine


def test_a_restored_machine_is_the_same_and_goes_on_the_same() -> None:
    machine = full_machine()
    restored = Machine.restore(blocks_of(machine.begin_snapshot()))
    assert restored.digest() == machine.digest()
    assert restored.last_applied_term == machine.last_applied_term == 1
    assert restored.settings == machine.settings
    assert restored.messages(9) == machine.messages(9)
    assert restored.messages_dropped == machine.messages_dropped
    assert restored.changes_since(0) == machine.changes_since(0)
    assert restored.compacted_revision == machine.compacted_revision
    assert restored.list() == machine.list()
    further: list[Command] = [
        InSession(1, 5, 0, Delete("x")),
        InSession(1, 1, 0, Put("b", b"")),
        Once(bytes(16), 3000, SendMessage("first", "n")),
        SendMessage("more", "n"),
        Put("b", b"", 3),
        KeepSession(8),
    ]
    for time_ms in (2000, 3001, 9000):
        assert apply(restored, *further, time_ms=time_ms) == apply(
            machine, *further, time_ms=time_ms
        )
        assert restored.digest() == machine.digest()


def test_an_empty_machine_has_a_snapshot_too() -> None:
    restored = Machine.restore(blocks_of(Machine().begin_snapshot()))
    assert restored.digest() == Machine().digest()
    apply(restored, Put("a", b""))
    assert restored.revision == 1


def test_what_is_exported_is_in_a_snapshot() -> None:
    machine = Machine()
    ports = Export("ports/", "ports", "hash", "u32", "u32", 2)
    gone = Export("gone/", "gone", "hash", "u32", "u32", 9)
    wider = msgspec.structs.replace(gone, value="u64")
    apply(machine, Put("ports/1", b"1"), AddExport(ports), AddExport(gone), RemoveExport("gone"))
    apply(machine, AddExport(wider), RemoveExport("gone"))
    restored = Machine.restore(blocks_of(machine.begin_snapshot()))
    assert restored.digest() == machine.digest()
    assert [shape.export for shape in restored.exports] == [ports]
    assert restored.exports.count("ports") == 1
    (bad, second, full, again) = apply(
        restored,
        Put("ports/x", b"1"),
        Put("ports/2", b"1"),
        Put("ports/3", b"1"),
        AddExport(gone),
    )
    assert isinstance(bad, BadValue)
    assert isinstance(second, WriteDone)
    assert isinstance(full, LimitReached)
    assert isinstance(again, WriteDone)
    shape = restored.exports.get("gone")
    assert shape is not None
    assert shape.version == 3


def test_a_snapshot_that_exports_what_there_is_not_is_refused() -> None:
    blocks = [encode_block(Portion(Section.HEADER, [Machine().begin_snapshot().header]))]
    odd = Export("ports/", "ports", "hash", "u33", "u32", 2)
    blocks.append(encode_block(Portion(Section.EXPORTS, [odd])))
    counts = [int(section is Section.EXPORTS) for section in Section]
    blocks.append(encode_block(Portion(Section.END, counts)))
    with pytest.raises(SnapshotError, match="u33"):
        Machine.restore(blocks)


keys = st.sampled_from(["", "a", "b", "c", "d", "e"])
puts = st.builds(Put, keys, st.binary(max_size=2))
small = st.integers(1, 4)
named = st.sampled_from(["a", "b", "c", "d", "e"])
operations = st.lists(
    st.one_of(
        st.builds(PutKey, named, st.binary(max_size=2), st.integers(0, 4)),
        st.builds(DeleteKey, named),
        st.builds(DeletePrefix, named),
        st.builds(GetKey, named),
        st.builds(ListKeys, st.just("")),
    ),
    max_size=3,
)
transactions = st.builds(
    Transact,
    st.lists(
        st.builds(Compare, st.just(Target.VERSION), named, st.sampled_from(Relation), small),
        max_size=2,
    ),
    operations,
    operations,
)
leased = st.one_of(
    st.builds(GrantLease, st.just(1000)),
    st.builds(PutLeased, named, st.binary(max_size=2), st.just(-1), small),
    st.builds(RevokeLease, small),
    transactions,
)
everything = st.one_of(
    puts,
    st.builds(Delete, keys),
    st.builds(SendMessage, st.text(max_size=2), st.just("n")),
    st.builds(OpenSession, st.just(1000)),
    st.builds(CloseSession, small),
    st.builds(InSession, small, small, small, puts | leased),
    st.builds(Once, st.binary(min_size=16, max_size=16), st.integers(1000, 3000), puts | leased),
    leased,
    st.builds(KeepLease, small),
    st.builds(ExpireLease, small, small),
    st.builds(SetSetting, st.just("messages_keep"), small),
    st.builds(SetSetting, st.just("history_keep"), small),
)
histories = st.lists(st.tuples(everything, st.integers(1000, 3000)), max_size=30)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "PIECE_ITEMS", 2)
    monkeypatch.setattr(sessions, "_SESSIONS_AT_ONCE", 1)
    monkeypatch.setattr(sessions, "_ONE_SHOTS_AT_ONCE", 1)


@pytest.mark.usefixtures("small_pieces")
@settings(
    max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(data=st.data())
def test_a_view_is_the_state_of_its_moment_while_others_apply(data: st.DataObject) -> None:
    machine = Machine(messages_keep=3, history_keep=2)
    for command, time_ms in data.draw(histories):
        apply(machine, command, time_ms=time_ms)
    digest = machine.digest()
    view = machine.begin_snapshot()
    blocks: list[bytes] = []
    later = data.draw(histories)
    for command, time_ms in later:
        apply(machine, command, time_ms=time_ms)
        if data.draw(st.booleans()):
            portion = view.next_items(data.draw(st.integers(1, 3)))
            if portion is not None:
                blocks.append(encode_block(portion))
    blocks += blocks_of(view, 2)
    restored = Machine.restore(blocks)
    assert restored.digest() == digest
    for command, time_ms in later:
        apply(restored, command, time_ms=time_ms)
    assert restored.digest() == machine.digest()


def test_a_history_over_its_bytes_is_restored_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "HISTORY_BYTES", 100)
    monkeypatch.setattr(recent, "_PIECE_BYTES", 10)
    machine = Machine()
    for size in [10] * 9 + [80] + [1] * 30:
        apply(machine, Put("k", bytes(size)))
        restored = Machine.restore(blocks_of(machine.begin_snapshot()))
        assert restored.compacted_revision == machine.compacted_revision
        assert restored.digest() == machine.digest()
        apply(restored, Put("k", bytes(10)))
        apply(machine, Put("k", bytes(10)))
        assert restored.digest() == machine.digest()


def test_two_views_do_not_disturb_each_other() -> None:
    machine = Machine()
    apply(machine, *(Put(f"k{number}", b"1") for number in range(9)))
    first_digest, first = machine.digest(), machine.begin_snapshot()
    blocks = [encode_block(portion) for _ in range(2) if (portion := first.next_items(3))]
    apply(machine, Delete("k5"), Put("k7", b"2"), Put("k55", b""))
    second_digest, second = machine.digest(), machine.begin_snapshot()
    apply(machine, Delete("k6"), Put("k5", b"3"))
    assert Machine.restore(blocks_of(second, 2)).digest() == second_digest
    assert Machine.restore([*blocks, *blocks_of(first, 2)]).digest() == first_digest


def test_blocks_are_small_but_for_values_that_are_not() -> None:
    machine = Machine(history_keep=0)
    apply(machine, *(Put(f"k{number:04}", b"x" * 1000) for number in range(600)))
    apply(machine, Put("z", b"x" * 1_000_000))
    sizes = [len(block) for block in blocks_of(machine.begin_snapshot())]
    assert sum(size > 2 * snapshot.BLOCK_BYTES for size in sizes) <= 2  # the key and its change
    assert len(sizes) > 5


def test_a_closed_view_costs_the_machine_nothing_more() -> None:
    machine = Machine()
    apply(machine, Put("a", b"old"))
    view = machine.begin_snapshot()
    view.close()
    view.close()
    apply(machine, Put("a", b"new"))
    assert len(view._before) == 0
    assert machine._views == []


def test_a_machine_that_adopts_another_becomes_it() -> None:
    machine, other = Machine(), full_machine()
    apply(machine, Put("old", b""))
    view = machine.begin_snapshot()
    digest = other.digest()
    old_digest = machine.digest()
    machine.adopt(other)
    assert machine.digest() == digest
    assert other.digest() == old_digest
    apply(machine, Put("new", b""))
    other.dismantle()  # not while somebody reads it
    assert Machine.restore(blocks_of(view)).digest() == old_digest
    other.dismantle()
    assert other.key_count() == 0
    assert machine.key_count() == 2


@pytest.fixture
def no_collector() -> Iterator[None]:
    """A running agent has full collections off."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_a_machine_that_nobody_uses_is_free_without_the_collector() -> None:
    machine = full_machine()
    for _ in blocks_of(machine.begin_snapshot()):
        machine.digest()
    gone = weakref.ref(machine)
    del machine
    assert gone() is None


@pytest.mark.usefixtures("no_collector", "small_pieces")
def test_a_dismantled_machine_holds_none_of_what_it_held() -> None:
    machine = full_machine()
    view = machine.begin_snapshot()
    items: dict[Section, list[object]] = {}
    while (portion := view.next_items()) is not None:
        items.setdefault(portion.section, []).extend(portion.items)
    view.close()
    del view, portion
    machine.dismantle()
    nobodys = [object()]
    expected = [sys.getrefcount(item) for item in nobodys]
    for section in (
        Section.KEYS,
        Section.MESSAGES,
        Section.HISTORY,
        Section.SESSIONS,
        Section.ONE_SHOTS,
    ):
        found = items.pop(section)
        assert [sys.getrefcount(item) for item in found] == expected * len(found), section


def test_watches_survive_an_adoption_and_are_told_what_they_may_have_missed() -> None:
    machine, other = Machine(), full_machine()
    apply(machine, Put("old", b""))
    told: list[tuple[str, int]] = []
    seen: list[str] = []
    watches = machine.watches
    watches.watch_key(
        "k", lambda changes: seen.append(changes[0].key), lambda r: told.append(("key", r))
    )
    watches.watch_prefix("x", lambda _changes: None, lambda r: told.append(("prefix", r)))
    watches.watch_messages(lambda _messages: None, lambda r: told.append(("messages", r)))
    cancel = watches.watch_key("k", lambda _changes: None, lambda r: told.append(("gone", r)))
    cancel()
    machine.adopt(other)
    assert told == [("key", 1), ("prefix", 1), ("messages", 1)]
    apply(machine, Put("k", b""))
    assert seen == ["k"]


def test_damaged_blocks_are_refused() -> None:
    blocks = blocks_of(full_machine().begin_snapshot(), 2)
    for damaged in (
        [],
        blocks[1:],
        blocks[:-1],
        blocks[:1] + blocks[2:],
        [*blocks, blocks[-1]],
        [blocks[0], *blocks],
        [b"\xc1", *blocks[1:]],
        [*blocks[:-1], b""],
    ):
        with pytest.raises(SnapshotError):
            Machine.restore(damaged)


def test_keys_that_are_not_in_their_order_are_refused() -> None:
    """The index would lose them, and listing them would break the machine."""
    machine = Machine()
    apply(machine, Put("a", b""), Put("b", b""))
    view = machine.begin_snapshot()
    entries = [machine.get("b"), machine.get("a")]
    for keys in (entries, entries[:1] * 2):
        blocks = [
            encode_block(Portion(Section.HEADER, [view.header])),
            encode_block(Portion(Section.KEYS, keys)),
        ]
        with pytest.raises(SnapshotError, match="is not in its place"):
            Machine.restore(blocks)


def test_settings_that_can_not_be_are_refused() -> None:
    header = msgspec.structs.replace(
        Machine().begin_snapshot().header, settings={"messages_keep": 0}
    )
    with pytest.raises(SnapshotError, match="messages_keep is a number from 1 to 10000000"):
        Machine.restore([encode_block(Portion(Section.HEADER, [header]))])


@pytest.mark.parametrize("number", [-1, 1 << 63])
def test_a_header_with_numbers_that_can_not_be_is_refused(number: int) -> None:
    header = msgspec.structs.replace(Machine().begin_snapshot().header, last_applied=number)
    with pytest.raises(SnapshotError, match="says what can't be"):
        Machine.restore([encode_block(Portion(Section.HEADER, [header]))])


def test_a_snapshot_of_another_version_is_refused_by_name() -> None:
    view = Machine().begin_snapshot()
    header = msgspec.structs.replace(view.header, version=3)
    with pytest.raises(SnapshotError, match=r"of version 3, and raft-agent .* knows version 1"):
        Machine.restore([encode_block(Portion(Section.HEADER, [header]))])


def test_the_collector_does_not_walk_over_what_was_restored() -> None:
    restored = Machine.restore(blocks_of(full_machine().begin_snapshot()))
    assert not gc.is_tracked(restored._entries)
