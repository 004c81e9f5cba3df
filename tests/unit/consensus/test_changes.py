"""Changes of the configuration as pure functions, against an obvious twin and rule by rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft_agent.consensus.changes import (
    ChangeRefusedError,
    change,
    is_joint,
    leave_joint,
    promotion,
)
from raft_agent.consensus.types import (
    Configuration,
    Joining,
    Member,
    MembershipChange,
    RefusalReason,
)
from tests.unit.consensus.harness import member
from tests.unit.consensus.server import examples

VOTERS = (1, 2, 3)
LEARNERS = (4, 5)
REMOVED = (9,)
BASE = Configuration(
    "c1",
    tuple(member(i) for i in (*VOTERS, *LEARNERS)),
    VOTERS,
    learners=LEARNERS,
    removed=REMOVED,
)


def reason(wanted: MembershipChange, configuration: Configuration = BASE) -> RefusalReason:
    with pytest.raises(ChangeRefusedError) as refused:
        change(configuration, wanted)
    return refused.value.reason


# --- the twin: a list of people, each with a part

ids = st.integers(1, 9)
id_sets = st.sets(ids, max_size=3).map(lambda chosen: tuple(sorted(chosen)))
wishes = st.builds(
    MembershipChange,
    add=id_sets.map(lambda chosen: tuple(member(i) for i in chosen)),
    joining=id_sets.map(lambda chosen: tuple(Joining(i) for i in chosen)),
    promote=id_sets,
    remove=id_sets,
    update=id_sets.map(lambda chosen: tuple(Member(i, "other", f"new{i}:1") for i in chosen)),
)


def some_of(*chosen: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.sets(st.sampled_from(chosen), max_size=2).map(lambda ids: tuple(sorted(ids)))


good_wishes = st.builds(
    MembershipChange,
    add=some_of(6, 7, 8).map(lambda chosen: tuple(member(i) for i in chosen)),
    joining=some_of(*LEARNERS).map(lambda chosen: tuple(Joining(i) for i in chosen)),
    promote=some_of(*LEARNERS),
    remove=some_of(*VOTERS, *LEARNERS),
    update=some_of(*VOTERS).map(lambda chosen: tuple(Member(i, "", f"new{i}:1") for i in chosen)),
)


def is_allowed(configuration: Configuration, wanted: MembershipChange) -> bool:
    there = {m.id for m in configuration.members}
    added = {m.id for m in wanted.add}
    learners = {*configuration.learners, *added}
    new_voters = ({*configuration.voters} | {*wanted.promote}) - {*wanted.remove}
    return (
        not added & (there | {*configuration.removed})
        and {m.id for m in wanted.update} <= there | added
        and {*wanted.remove} <= there | added
        and {*wanted.promote} <= learners
        and {entry.id for entry in wanted.joining} <= learners
        and bool(new_voters)
    )


def parts_after(configuration: Configuration, wanted: MembershipChange) -> dict[int, str]:
    """Who is what once all is done."""
    parts = dict.fromkeys(configuration.voters, "voter")
    parts |= dict.fromkeys(configuration.learners, "learner")
    parts |= dict.fromkeys((m.id for m in wanted.add), "learner")
    parts |= dict.fromkeys(wanted.promote, "voter")
    return {i: part for i, part in parts.items() if i not in wanted.remove}


def parts_of(configuration: Configuration) -> dict[int, str]:
    parts = dict.fromkeys(configuration.voters, "voter")
    return parts | dict.fromkeys(configuration.learners, "learner")


@examples
@given(wanted=wishes | good_wishes, extra=st.sets(st.integers(4, 5)))
def test_a_change_does_to_everybody_what_was_wanted(
    wanted: MembershipChange, extra: set[int]
) -> None:
    learners = tuple(sorted(extra))
    start = Configuration(
        "c1",
        tuple(member(i) for i in (*VOTERS, *learners)),
        VOTERS,
        learners=learners,
        removed=REMOVED,
        joining=tuple(Joining(i) for i in learners[:1]),
    )
    if not is_allowed(start, wanted):
        with pytest.raises(ChangeRefusedError):
            change(start, wanted)
        return
    first = change(start, wanted)
    last = leave_joint(first) if is_joint(first) else first
    assert parts_of(last) == parts_after(start, wanted)
    assert [m.id for m in last.members] == sorted(parts_of(last))
    assert set(last.removed) == {*REMOVED, *wanted.remove}
    moved = {m.id for m in wanted.update}
    for known in last.members:
        new = f"new{known.id}:1" if known.id in moved else f"n{known.id}:5555"
        assert (known.name, known.address) == (f"n{known.id}", new)
    wants_in = {*learners[:1], *(entry.id for entry in wanted.joining)}
    assert [entry.id for entry in last.joining] == sorted(wants_in & {*last.learners})


@examples
@given(wanted=good_wishes)
def test_a_change_of_voters_is_joint_and_no_other(wanted: MembershipChange) -> None:
    following = change(BASE, wanted)
    assert is_joint(following) == (following.voters != BASE.voters)
    assert following.voters_outgoing == (VOTERS if is_joint(following) else ())
    # Nobody who still votes has gone, and it is known where they are.
    assert {*following.voters, *following.voters_outgoing} <= {m.id for m in following.members}
    assert not {*following.removed} & {m.id for m in following.members}


@examples
@given(wanted=good_wishes)
def test_all_lists_of_a_configuration_are_sorted_and_hold_nobody_twice(
    wanted: MembershipChange,
) -> None:
    first = change(BASE, wanted)
    for configuration in (first, leave_joint(first)):
        for ids_of in (
            configuration.voters,
            configuration.voters_outgoing,
            configuration.learners,
            configuration.removed,
            tuple(m.id for m in configuration.members),
            tuple(entry.id for entry in configuration.joining),
        ):
            assert list(ids_of) == sorted(set(ids_of))
        assert not {*configuration.voters} & {*configuration.learners}


# --- rule by rule


def test_nothing_is_changed_while_joint() -> None:
    joint = change(BASE, MembershipChange(promote=(4,)))
    assert reason(MembershipChange(), joint) is RefusalReason.CHANGE_PENDING


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (MembershipChange(add=(member(9),)), RefusalReason.ID_REMOVED),
        (MembershipChange(add=(member(2),)), RefusalReason.ID_TAKEN),
        (MembershipChange(add=(member(4),)), RefusalReason.ID_TAKEN),
        (MembershipChange(add=(member(6), member(6))), RefusalReason.ID_TAKEN),
        (MembershipChange(add=(Member(6, "n2", "n6:1"),)), RefusalReason.NAME_TAKEN),
        (MembershipChange(add=(Member(6, "n6", "n2:5555"),)), RefusalReason.ADDRESS_TAKEN),
        (MembershipChange(update=(Member(1, "n1", "n2:5555"),)), RefusalReason.ADDRESS_TAKEN),
        (MembershipChange(update=(member(7),)), RefusalReason.UNKNOWN_MEMBER),
        (MembershipChange(remove=(7,)), RefusalReason.UNKNOWN_MEMBER),
        (MembershipChange(remove=(1, 2, 3)), RefusalReason.NO_VOTER_LEFT),
        (MembershipChange(remove=(1, 2, 3, 4, 5)), RefusalReason.NO_VOTER_LEFT),
        (MembershipChange(promote=(2,)), RefusalReason.ALREADY_VOTER),
        (MembershipChange(promote=(7,)), RefusalReason.UNKNOWN_MEMBER),
        (MembershipChange(joining=(Joining(2),)), RefusalReason.ALREADY_VOTER),
        (MembershipChange(joining=(Joining(7),)), RefusalReason.UNKNOWN_MEMBER),
        (MembershipChange(joining=(Joining(4, 7),)), RefusalReason.UNKNOWN_MEMBER),
        (MembershipChange(joining=(Joining(4, 4),)), RefusalReason.UNKNOWN_MEMBER),
    ],
)
def test_what_is_taken_unknown_or_would_leave_nobody_is_refused(
    wanted: MembershipChange, expected: RefusalReason
) -> None:
    assert reason(wanted) is expected


def test_name_and_address_of_somebody_who_goes_are_free_in_the_same_change() -> None:
    new = Member(6, "n2", "n2:5555")
    following = change(BASE, MembershipChange(add=(new,), remove=(2,)))
    assert is_joint(following)
    assert new in leave_joint(following).members


def test_members_can_swap_their_addresses() -> None:
    swapped = (Member(1, "n1", "n2:5555"), Member(2, "n2", "n1:5555"))
    following = change(BASE, MembershipChange(update=swapped))
    assert following.members[:2] == swapped
    assert not is_joint(following)


def test_an_update_moves_an_address_and_never_a_name() -> None:
    following = change(BASE, MembershipChange(update=(Member(1, "other", "x:1"),)))
    assert following.members[0] == Member(1, "n1", "x:1")


def test_a_learner_goes_at_once_even_in_a_joint_change_and_a_voter_with_its_end() -> None:
    following = change(BASE, MembershipChange(promote=(4,), remove=(3, 5)))
    assert following.removed == (5, 9)
    assert [m.id for m in following.members] == [1, 2, 3, 4]
    last = leave_joint(following)
    assert last.removed == (3, 5, 9)
    assert [m.id for m in last.members] == [1, 2, 4]


def test_to_leave_what_is_not_joint_changes_nothing() -> None:
    assert leave_joint(BASE) == BASE


def test_a_promotion_takes_along_whom_it_replaces() -> None:
    assert promotion(BASE, Joining(4, 2)) == MembershipChange(promote=(4,), remove=(2,))
    assert promotion(BASE, Joining(4)) == MembershipChange(promote=(4,))


def test_a_promotion_in_place_of_somebody_who_has_gone_replaces_nobody() -> None:
    """The id may have gone by another change in the meantime."""
    start = change(BASE, MembershipChange(joining=(Joining(4, 2), Joining(5, 3))))
    assert start.joining == (Joining(4, 2), Joining(5, 3))
    later = leave_joint(change(start, MembershipChange(remove=(2,))))
    assert later.joining == (Joining(4), Joining(5, 3))
    assert promotion(later, Joining(4, 2)) == MembershipChange(promote=(4,))


def test_the_last_word_on_whom_a_learner_replaces_counts() -> None:
    start = change(BASE, MembershipChange(joining=(Joining(4, 2),)))
    assert change(start, MembershipChange(joining=(Joining(4, 3),))).joining == (Joining(4, 3),)
