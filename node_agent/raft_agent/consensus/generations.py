"""Which generation a node is of, and what those of others are to it.

A recovery gives the cluster a new generation under a random number: two survivors that both
recover, each behind its side of a partition, never take each other for members of one cluster.
"""

from __future__ import annotations

import enum

from raft_agent.consensus.data import Configuration, Generation

FIRST = Generation()


class Kinship(enum.StrEnum):
    """What another generation is to one's own. FORMER: this one goes back to it."""

    SAME = "same"
    FORMER = "former"
    STRANGE = "strange"


def generation_of(configuration: Configuration | None) -> Generation:
    """The one that the configuration belongs to; that of the founding when it names none."""
    if configuration is None or not isinstance(configuration.generation, Generation):
        return FIRST
    return configuration.generation


def kinship(own: Generation, other_id: int) -> Kinship:
    """What the generation with the number `other_id` is to `own`."""
    if other_id == own.id:
        return Kinship.SAME
    return Kinship.FORMER if other_id in own.former else Kinship.STRANGE


def is_awaited(own: Generation, member_id: int) -> bool:
    """Whether the member of a former generation is to come in again."""
    return any(member.id == member_id for member in own.awaited)
