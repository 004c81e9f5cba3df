"""Which configuration is in force, and how it is written down."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft_agent.consensus.batch import Batch, BatchKind, encode
from raft_agent.consensus.membership import (
    Membership,
    decode_configuration,
    encode_configuration,
    first_entry,
    is_voter,
    replicated_to,
)
from raft_agent.consensus.types import Configuration, Member
from tests.unit.consensus.server import configuration_of, examples

IDS = st.lists(st.integers(1, (1 << 64) - 1), unique=True, max_size=5).map(
    lambda ids: tuple(sorted(ids))
)
CONFIGURATIONS = st.builds(
    Configuration,
    st.text(max_size=32),
    st.lists(
        st.builds(Member, st.integers(1, (1 << 64) - 1), st.text(), st.text()), max_size=4
    ).map(tuple),
    IDS,
    IDS,
    IDS,
    IDS,
)


def entry_of(index: int, configuration: Configuration) -> Batch:
    return encode(BatchKind.CONFIGURATION, index, 1, 1, encode_configuration(configuration))


@examples
@given(CONFIGURATIONS)
def test_a_configuration_survives_encoding_and_decoding(configuration: Configuration) -> None:
    assert decode_configuration(encode_configuration(configuration)) == configuration
    assert decode_configuration(first_entry(configuration).payload) == configuration


@examples
@given(CONFIGURATIONS)
def test_the_first_entry_of_a_configuration_always_has_the_same_bytes(
    configuration: Configuration,
) -> None:
    """Whoever brings a node in sends what the founder wrote."""
    again = decode_configuration(encode_configuration(configuration))
    batch = first_entry(configuration)
    assert first_entry(again) == batch
    assert (batch.first_index, batch.term, batch.count) == (1, 1, 1)


@examples
@given(st.binary(max_size=40))
def test_foreign_bytes_are_no_configuration(data: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, msgspec.ValidationError)):
        decode_configuration(data)


def test_the_latest_configuration_in_the_log_is_in_force() -> None:
    """§6: committed or not."""
    membership = Membership([(1, configuration_of(3))])
    membership.append(entry_of(5, configuration_of(4)))
    assert membership.current == configuration_of(4)
    assert membership.first == (1, configuration_of(3))


@pytest.mark.parametrize(
    ("cut", "changed", "size"), [(10, False, 5), (9, True, 4), (6, True, 4), (5, True, 3)]
)
def test_a_cut_brings_the_older_configuration_back(cut: int, changed: bool, size: int) -> None:
    membership = Membership([(1, configuration_of(3))])
    membership.append(entry_of(5, configuration_of(4)))
    membership.append(entry_of(9, configuration_of(5)))
    assert membership.truncate(cut) is changed
    assert membership.current == configuration_of(size)


def test_without_any_configuration_nobody_is_a_member() -> None:
    membership = Membership([])
    assert membership.current is None
    assert membership.first is None
    assert membership.member(1) is None
    assert not is_voter(None, 1)


def test_members_are_found_by_id() -> None:
    membership = Membership([(1, configuration_of(3))])
    assert membership.member(2) == Member(2, "n2", "n2:5555")
    assert membership.member(4) is None


def test_voters_of_both_sides_vote_and_learners_do_not() -> None:
    joint = Configuration("c", (), (1, 2), voters_outgoing=(2, 3), learners=(4,), removed=(5,))
    assert [is_voter(joint, i) for i in range(1, 6)] == [True, True, True, False, False]


def test_everybody_but_the_removed_gets_the_log() -> None:
    joint = Configuration("c", (), (1, 9), voters_outgoing=(3, 9), learners=(4,), removed=(5,))
    assert replicated_to(joint) == (1, 3, 4, 9)


def history(*indexes: int) -> Membership:
    return Membership((index, configuration_of(index)) for index in indexes)


def test_a_compacted_log_keeps_the_configuration_in_force_at_its_base() -> None:
    for base_index, first_index in ((2, 1), (3, 3), (4, 3), (5, 5), (9, 5)):
        membership = history(1, 3, 5)
        membership.compact(base_index)
        assert membership.first == (first_index, configuration_of(first_index))
        assert membership.index == 5


def test_a_log_that_begins_anew_knows_one_configuration() -> None:
    membership = history(1, 3, 5)
    membership.reset(4, configuration_of(2))
    assert membership.first == (4, membership.current) == (4, configuration_of(2))


def test_what_was_in_force_is_known_from_the_first_configuration_on() -> None:
    membership = history(3, 5)
    known = [membership.in_force_at(index) for index in range(2, 7)]
    assert [at[0] if at else 0 for at in known] == [0, 3, 3, 5, 5]


def test_who_was_a_voter_may_lead_until_its_removal_is_known_to_be_committed() -> None:
    membership = history(3, 5)
    membership.append(entry_of(7, Configuration("c1", (), (1, 2))))
    for member_id, commit_index, may_lead in (
        (1, 9, True),
        (5, 0, True),
        (5, 6, True),
        (5, 7, False),
        (6, 0, False),
    ):
        assert membership.may_lead(member_id, commit_index) == may_lead


def test_somebody_is_removed_once_that_is_committed() -> None:
    membership = history(3)
    membership.append(entry_of(7, Configuration("c1", (), (1,), removed=(2,))))
    assert not membership.is_removed(2, 2)
    assert not membership.is_removed(2, 6)
    assert membership.is_removed(2, 7)
    assert not membership.is_removed(1, 7)
