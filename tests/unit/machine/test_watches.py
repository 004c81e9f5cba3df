"""Watches: every change, once per batch, to whom it concerns and to nobody else."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from raft_agent.machine.commands import Delete, Put, SendMessage
from raft_agent.machine.machine import Machine
from raft_agent.machine.watches import KeyChange, Message
from tests.unit.machine.batches import apply


def test_a_key_watch_gets_one_list_per_batch_after_it_is_applied() -> None:
    machine = Machine()
    seen: list[tuple[list[KeyChange], int]] = []
    machine.watches.watch_key("a", lambda changes: seen.append((changes, machine.last_applied)))
    apply(machine, Put("a", b"1"), Put("b", b""), Put("a", b"2"), Delete("a"))
    apply(machine, Put("b", b""))
    apply(machine, Put("a", b"3"))
    assert seen == [
        (
            [
                KeyChange("a", b"1", revision=1, index=1),
                KeyChange("a", b"2", revision=3, index=3),
                KeyChange("a", None, revision=4, index=4),
            ],
            4,
        ),
        ([KeyChange("a", b"3", revision=6, index=6)], 6),
    ]


def test_what_changed_nothing_is_not_told() -> None:
    machine = Machine()
    seen: list[list[KeyChange]] = []
    machine.watches.watch_prefix("", seen.append)
    apply(machine, Delete("a"), Put("a", b"", 5), b"\x91\x63", SendMessage("", ""))
    assert seen == []


def test_a_message_watch_gets_the_messages_of_each_batch() -> None:
    machine = Machine()
    seen: list[list[Message]] = []
    cancel = machine.watches.watch_messages(seen.append)
    apply(machine, SendMessage("one", "n"), Put("a", b""), SendMessage("two", "n"))
    apply(machine, Put("a", b""))
    cancel()
    apply(machine, SendMessage("three", "n"))
    assert [[message.text for message in batch] for batch in seen] == [["one", "two"]]


def test_a_cancelled_watch_hears_nothing_more_even_of_the_same_batch() -> None:
    machine = Machine()
    seen: list[str] = []
    cancels: dict[str, Callable[[], None]] = {}

    def first(_changes: list[KeyChange]) -> None:
        seen.append("first")
        cancels["second"]()
        cancels["first"]()

    cancels["first"] = machine.watches.watch_key("a", first)
    cancels["second"] = machine.watches.watch_key("a", lambda _changes: seen.append("second"))
    apply(machine, Put("a", b""))
    apply(machine, Put("a", b""))
    assert seen == ["first"]
    cancels["first"]()
    assert not machine.watches.watches_keys


def test_a_watch_added_while_others_are_told_starts_with_the_next_batch() -> None:
    machine = Machine()
    seen: list[int] = []

    def add_another(_changes: list[KeyChange]) -> None:
        machine.watches.watch_key("a", lambda changes: seen.append(changes[0].index))

    machine.watches.watch_key("a", add_another)
    apply(machine, Put("a", b""))
    assert seen == []
    apply(machine, Put("a", b""))
    assert seen == [2]


def test_two_watches_with_one_function_are_two() -> None:
    machine = Machine()
    seen: list[list[KeyChange]] = []
    cancel = machine.watches.watch_key("a", seen.append)
    machine.watches.watch_key("a", seen.append)
    apply(machine, Put("a", b""))
    assert len(seen) == 2
    cancel()
    cancel()
    apply(machine, Put("a", b""))
    assert len(seen) == 3


def test_watches_do_not_change_the_state() -> None:
    watched, plain = Machine(), Machine()
    watched.watches.watch_prefix("", lambda _changes: None)
    watched.watches.watch_messages(lambda _messages: None)
    for machine in (watched, plain):
        apply(machine, Put("a", b"1"), SendMessage("hi", "n"), Delete("a"))
    assert watched.digest() == plain.digest()


words = st.text("ab", max_size=3)


@given(
    st.lists(st.tuples(st.booleans(), words), max_size=8),
    st.lists(words, min_size=1, max_size=12),
    st.sets(st.integers(0, 7)),
)
def test_each_watch_gets_exactly_the_changes_that_match_it(
    patterns: list[tuple[bool, str]], keys: list[str], cancelled: set[int]
) -> None:
    machine = Machine()
    seen: list[list[str]] = [[] for _ in patterns]

    def collect(place: int) -> Callable[[list[KeyChange]], None]:
        return lambda changes: seen[place].extend(change.key for change in changes)

    watches = machine.watches
    cancels = [
        (watches.watch_prefix if is_prefix else watches.watch_key)(pattern, collect(place))
        for place, (is_prefix, pattern) in enumerate(patterns)
    ]
    for place in cancelled & set(range(len(patterns))):
        cancels[place]()
    apply(machine, *(Put(key, b"") for key in keys))
    for place, (is_prefix, pattern) in enumerate(patterns):
        expected = [
            key for key in keys if (key.startswith(pattern) if is_prefix else key == pattern)
        ]
        assert seen[place] == ([] if place in cancelled else expected)
    for cancel in cancels:
        cancel()
    assert not watches.watches_keys
    assert not watches._prefix_lengths
