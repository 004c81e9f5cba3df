"""quorum.py against twins that are slow and obvious."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from raft_agent.consensus.quorum import has_quorum, is_lost, reached_by_quorum
from raft_agent.consensus.types import Configuration
from tests.unit.consensus.server import examples

IDS = st.integers(1, 9)
VOTERS = st.sets(IDS, min_size=1, max_size=7)
AGREEING = st.sets(st.integers(1, 12))


@st.composite
def configurations(draw: st.DrawFn) -> Configuration:
    outgoing = draw(st.one_of(st.just(set()), VOTERS))
    return Configuration(
        "c", (), tuple(sorted(draw(VOTERS))), voters_outgoing=tuple(sorted(outgoing))
    )


def sides(configuration: Configuration) -> list[set[int]]:
    both = [set(configuration.voters), set(configuration.voters_outgoing)]
    return [side for side in both if side]


def slow_has_quorum(configuration: Configuration, agreeing: set[int]) -> bool:
    """Some majority of each side, written out one by one, agrees."""
    return all(
        any(
            set(majority) <= agreeing
            for size in range(1, len(side) + 1)
            if size * 2 > len(side)
            for majority in combinations(sorted(side), size)
        )
        for side in sides(configuration)
    )


def slow_reached(configuration: Configuration, values: dict[int, int]) -> int:
    """The largest of all values that a quorum has reached, tried one by one."""
    candidates = sorted({0, *values.values()}, reverse=True)
    return next(
        value
        for value in candidates
        if slow_has_quorum(configuration, {i for i in range(13) if values.get(i, 0) >= value})
    )


@examples
@given(configurations(), AGREEING)
def test_a_quorum_is_a_majority_of_each_side(
    configuration: Configuration, agreeing: set[int]
) -> None:
    assert has_quorum(configuration, agreeing) == slow_has_quorum(configuration, agreeing)


@examples
@given(configurations(), AGREEING)
def test_a_quorum_is_lost_when_those_left_are_none(
    configuration: Configuration, refusing: set[int]
) -> None:
    everybody = set().union(*sides(configuration))
    left = everybody - refusing
    assert is_lost(configuration, refusing) == (not slow_has_quorum(configuration, left))


@examples
@given(configurations(), st.dictionaries(st.integers(1, 12), st.integers(0, 20)))
def test_what_a_quorum_has_reached_is_the_largest_such_value(
    configuration: Configuration, values: dict[int, int]
) -> None:
    assert reached_by_quorum(configuration, values) == slow_reached(configuration, values)


@examples
@given(configurations(), AGREEING, AGREEING)
def test_two_quorums_share_a_voter(
    configuration: Configuration, one: set[int], other: set[int]
) -> None:
    if has_quorum(configuration, one) and has_quorum(configuration, other):
        assert all(one & other & side for side in sides(configuration))


@examples
@given(configurations(), AGREEING, AGREEING)
def test_more_who_agree_never_undo_a_quorum(
    configuration: Configuration, agreeing: set[int], more: set[int]
) -> None:
    assert has_quorum(configuration, agreeing) <= has_quorum(configuration, agreeing | more)
