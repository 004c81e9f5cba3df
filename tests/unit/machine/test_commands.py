"""Commands and the payload of a batch of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft_agent.machine.commands import (
    TIME,
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
    RevokeLease,
    SendMessage,
    SetSetting,
    Transact,
    encode_command,
    encode_commands,
    join_commands,
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
from tests.unit.machine.batches import split_commands

revisions = st.integers(-1, 2**63 - 1)
numbers = st.integers(0, 2**63 - 1)
operations = st.lists(
    st.one_of(
        st.builds(PutKey, st.text(), st.binary(), numbers),
        st.builds(DeleteKey, st.text()),
        st.builds(DeletePrefix, st.text()),
        st.builds(GetKey, st.text()),
        st.builds(ListKeys, st.text(), numbers),
    )
)
compares = st.lists(
    st.builds(
        Compare,
        st.sampled_from(Target),
        st.text(),
        st.sampled_from(Relation),
        numbers | st.binary(),
    )
)
state_commands = st.one_of(
    st.builds(Put, st.text(), st.binary(), revisions),
    st.builds(Delete, st.text(), revisions),
    st.builds(SendMessage, st.text(), st.text()),
    st.builds(PutLeased, st.text(), st.binary(), revisions, numbers),
    st.builds(GrantLease, numbers),
    st.builds(RevokeLease, numbers),
    st.builds(Transact, compares, operations, operations),
)
commands = st.one_of(
    state_commands,
    st.builds(OpenSession, numbers),
    st.builds(KeepSession, numbers),
    st.builds(CloseSession, numbers),
    st.builds(InSession, numbers, numbers, numbers, state_commands),
    st.builds(Once, st.binary(), numbers, state_commands),
    st.builds(SetSetting, st.text(), numbers),
    st.builds(KeepLease, numbers),
    st.builds(ExpireLease, numbers, numbers),
)


@given(commands)
def test_a_command_is_read_as_it_was_written(command: Command) -> None:
    payload = join_commands(7, 1, [encode_command(command)])
    assert split_commands(memoryview(payload), 1) == [command]


@pytest.mark.parametrize(
    ("command", "encoded"),
    [
        (Put("k", b"v", 7), b"\x94\x01\xa1k\xc4\x01v\x07"),
        (Delete("k"), b"\x93\x02\xa1k\xff"),
        (SendMessage("hi", "n"), b"\x93\x03\xa2hi\xa1n"),
        (OpenSession(9), b"\x92\x04\x09"),
        (KeepSession(9), b"\x92\x05\x09"),
        (CloseSession(9), b"\x92\x06\x09"),
        (InSession(9, 8, 7, Delete("k")), b"\x95\x07\x09\x08\x07\x93\x02\xa1k\xff"),
        (Once(b"id", 5, Delete("k")), b"\x94\x08\xc4\x02id\x05\x93\x02\xa1k\xff"),
        (SetSetting("s", 5), b"\x93\x09\xa1s\x05"),
        (PutLeased("k", b"v", -1, 9), b"\x95\x0a\xa1k\xc4\x01v\xff\x09"),
        (GrantLease(9), b"\x92\x0b\x09"),
        (RevokeLease(9), b"\x92\x0c\x09"),
        (
            Transact(
                [Compare(Target.VERSION, "k", Relation.GREATER, 2)],
                [PutKey("k", b"v", 9), DeleteKey("a"), DeletePrefix("b")],
                [GetKey("k"), ListKeys("c", 3)],
            ),
            b"\x94\x0d\x91\x94\xa7version\xa1k\xa1>\x02"
            b"\x93\x94\xa3put\xa1k\xc4\x01v\x09\x92\xa6delete\xa1a\x92\xaddelete_prefix\xa1b"
            b"\x92\x92\xa3get\xa1k\x93\xa4list\xa1c\x03",
        ),
        (KeepLease(9), b"\x92\x0e\x09"),
        (ExpireLease(9, 8), b"\x93\x0f\x09\x08"),
    ],
)
def test_the_bytes_in_logs_that_exist_never_change(command: Command, encoded: bytes) -> None:
    assert encode_command(command) == encoded


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93\x63\xa1k\xff",  # a number that no command has
        b"\x93\x02\xa1\xff\xff",  # a key that is no UTF-8
        b"\x94\x02\xa1k\xff\x00",  # a field more than there are
        b"\x92\x01\xa1k",  # no value
        b"\x93\x02\xa1k\xff\x00",  # something behind the command
        b"\x91" * 100_000,
        b"\x95\x07\x01\x01\x00\x92\x04\x09",  # a session in a session
    ],
)
def test_bytes_that_are_no_command_are_refused(data: bytes) -> None:
    assert split_commands(join_commands(7, 1, [data]), 1) == [None]


@given(st.integers(0, 2**64 - 1), st.lists(commands, max_size=20), st.integers(0, 20))
def test_what_was_joined_is_split_again(time_ms: int, those: list[Command], cut: int) -> None:
    parts = [encode_commands(those[:cut]), encode_commands(those[cut:])]
    payload = join_commands(time_ms, len(those), parts)
    assert TIME.unpack_from(payload) == (time_ms,)
    assert split_commands(memoryview(payload), len(those)) == those


@pytest.mark.parametrize("count", [15, 16, (1 << 16) - 1, 1 << 16])
def test_any_number_of_commands_is_joined_without_the_head_of_their_array(count: int) -> None:
    encoded = encode_commands([KeepSession(1)] * count)
    assert bytes(encoded) == encode_command(KeepSession(1)) * count


def test_what_is_no_command_is_one_bad_command_and_not_more() -> None:
    parts = [encode_command(Delete("a")), b"\x92\x63\xa1k", encode_command(Delete("b"))]
    payload = join_commands(1, 3, parts)
    assert split_commands(payload, 3) == [Delete("a"), None, Delete("b")]


@given(st.lists(commands, min_size=1, max_size=5), st.data())
def test_of_a_payload_that_is_cut_short_nothing_is_a_command(
    those: list[Command], data: st.DataObject
) -> None:
    payload = join_commands(1, len(those), [encode_commands(those)])
    cut = data.draw(st.integers(0, len(payload) - 1))
    assert split_commands(payload[:cut], len(those)) == [None] * len(those)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_of_a_payload_with_another_number_of_commands_nothing_is_one(count: int) -> None:
    payload = join_commands(1, 2, [encode_commands([Delete("a"), Delete("b")])])
    assert split_commands(payload, count) == [None] * count
    assert split_commands(payload + b"\xc0", 2) == [None, None]
