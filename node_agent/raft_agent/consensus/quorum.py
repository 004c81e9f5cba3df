"""Majorities, alone and joint (§6 of the paper): pure functions over sets of voters."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from raft_agent.consensus.types import Configuration


def _majority(voters: Collection[int], agreeing: Collection[int]) -> bool:
    return sum([voter in agreeing for voter in voters]) > len(voters) // 2


def has_quorum(configuration: Configuration, agreeing: Collection[int]) -> bool:
    """Whether `agreeing` holds a majority of the voters and, while joint, of the outgoing ones."""
    if not _majority(configuration.voters, agreeing):
        return False
    outgoing = configuration.voters_outgoing
    return not outgoing or _majority(outgoing, agreeing)


def is_lost(configuration: Configuration, refusing: Collection[int]) -> bool:
    """Whether so many refused that no quorum can come about any more."""
    for voters in (configuration.voters, configuration.voters_outgoing):
        refused = sum(voter in refusing for voter in voters)
        if voters and len(voters) - refused <= len(voters) // 2:
            return True
    return False


def _reached_by_majority(voters: Collection[int], values: Mapping[int, int]) -> int:
    ranked = sorted([values.get(voter, 0) for voter in voters])
    return ranked[(len(ranked) - 1) // 2]


def reached_by_quorum(configuration: Configuration, values: Mapping[int, int]) -> int:
    """The largest value that a quorum has reached; a voter without a value counts as 0.

    With match indexes this is what may be committed, with times of contact it is the moment since
    when a quorum has been heard.
    """
    reached = _reached_by_majority(configuration.voters, values)
    if configuration.voters_outgoing:
        reached = min(reached, _reached_by_majority(configuration.voters_outgoing, values))
    return reached
