"""Settings that all nodes share."""

from __future__ import annotations

import pytest

from raft_agent.machine.commands import Put, SendMessage, SetSetting
from raft_agent.machine.machine import Machine
from raft_agent.machine.results import BadValue, SettingDone
from tests.unit.machine.batches import apply


def test_a_setting_is_changed_without_a_new_revision() -> None:
    machine = Machine()
    apply(machine, Put("a", b""))
    assert apply(machine, SetSetting("messages_keep", 6)) == [SettingDone(1)]
    assert machine.settings.messages_keep == 6


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("nonsense", 1, 'There is no setting "nonsense"; there are: history_keep, messages_keep'),
        ("messages_keep", 0, "messages_keep is a number from 1 to 10000000, not 0"),
        ("history_keep", -1, "history_keep is a number from 0 to 10000000, not -1"),
        ("history_keep", 10_000_001, "history_keep is a number from 0 to 10000000, not 10000001"),
    ],
)
def test_a_bad_setting_is_refused_with_what_would_be_right(
    name: str, value: int, reason: str
) -> None:
    machine = Machine()
    before = machine.settings
    assert apply(machine, SetSetting(name, value)) == [BadValue(reason)]
    assert machine.settings == before


def test_fewer_messages_to_keep_drops_the_others_at_once() -> None:
    machine = Machine()
    apply(machine, *(SendMessage(str(number), "n") for number in range(5000)))
    apply(machine, SetSetting("messages_keep", 2))
    assert [message.text for message in machine.messages(9)] == ["4999", "4998"]
    assert machine.messages_dropped == 4998
    dropped = []
    for number in range(3):
        apply(machine, SendMessage(f"new {number}", "n"))
        dropped.append(machine.messages_dropped)
    assert dropped == [4999, 5000, 5002]  # 5001 was the setting
    assert [message.text for message in machine.messages_after(0)] == ["new 1", "new 2"]


def test_the_memory_of_dropped_messages_is_freed_little_by_little() -> None:
    machine = Machine()
    apply(machine, *(SendMessage("", "n") for _ in range(20_000)))
    apply(machine, SetSetting("messages_keep", 1))
    for _ in range(20):
        apply(machine, SendMessage("", "n"))
    assert sum(map(len, machine._message_log._pieces)) < 2500


def test_more_messages_to_keep_brings_none_back() -> None:
    machine = Machine(messages_keep=1)
    apply(machine, *(SendMessage(str(number), "n") for number in range(3)))
    apply(machine, SetSetting("messages_keep", 9), SendMessage("3", "n"))
    assert [message.text for message in machine.messages(9)] == ["3", "2"]


def test_history_keeps_at_least_what_it_should_and_not_much_more() -> None:
    machine = Machine(history_keep=3000)
    for number in range(10_000):
        apply(machine, Put(f"k{number % 7}", b"%d" % number))
        kept = machine.changes_since(0)
        if number % 500 == 0:
            assert min(number + 1, 3000) <= len(kept) <= 3000 + 2048
            assert kept[0].revision == machine.compacted_revision + 1
            assert kept[-1].revision == machine.revision


def test_history_is_read_from_a_revision_on() -> None:
    machine = Machine()
    apply(machine, *(Put("k", b"%d" % number) for number in range(3000)))
    for revision in (1, 2, 1024, 1025, 2999, 3000):
        changes = machine.changes_since(revision, 5)
        expected = list(range(revision, min(revision + 5, 3001)))
        assert [change.revision for change in changes] == expected
    assert machine.changes_since(3001) == []
    assert machine.compacted_revision == 0


def test_history_of_large_values_is_limited_by_their_bytes() -> None:
    machine = Machine()
    value = bytes(8 << 20)
    for _ in range(12):
        apply(machine, Put("k", value))
    assert 7 <= len(machine.changes_since(0)) <= 9
    assert machine.compacted_revision >= 3
