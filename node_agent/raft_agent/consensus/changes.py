"""Changes of the membership as functions from one configuration to the next (§6 of the paper).

A change of the voters goes through a joint configuration, in which both majorities must agree:
`change` makes it, `leave_joint` what follows it. A change of learners and addresses alone moves no
quorum and is made in one step. Whatever the change does, it is one entry, or one pair of entries.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import UNSET, UnsetType, structs

from raft_agent.consensus.generations import generation_of
from raft_agent.consensus.types import (
    Configuration,
    Generation,
    Joining,
    Member,
    MembershipChange,
    RefusalReason,
)


class ChangeRefusedError(ValueError):
    """The configuration can't be changed so; `reason` says why."""

    def __init__(self, reason: RefusalReason) -> None:
        super().__init__(str(reason))
        self.reason = reason


def is_joint(configuration: Configuration) -> bool:
    return bool(configuration.voters_outgoing)


def change(configuration: Configuration, wanted: MembershipChange) -> Configuration:
    """The configuration to append for `wanted`; joint when the voters change.

    Raises ChangeRefusedError.
    """
    if is_joint(configuration):
        raise ChangeRefusedError(RefusalReason.CHANGE_PENDING)
    members = _members(configuration, wanted)
    gone = set(wanted.remove)
    promoted = set(wanted.promote)
    learners = {*configuration.learners, *(member.id for member in wanted.add)}
    _check_parts(configuration, wanted, learners)
    voters = _sorted({*configuration.voters, *promoted} - gone)
    if not voters:
        raise ChangeRefusedError(RefusalReason.NO_VOTER_LEFT)
    learners -= promoted | gone
    joining = {entry.id: entry for entry in (*configuration.joining, *wanted.joining)}
    following = Configuration(
        cluster_id=configuration.cluster_id,
        members=members,
        voters=voters,
        learners=_sorted(learners),
        removed=configuration.removed,
        joining=tuple(
            Joining(entry.id, 0 if entry.replaces in gone else entry.replaces)
            for _, entry in sorted(joining.items())
            if entry.id in learners
        ),
        generation=_generation(configuration, wanted),
    )
    if voters == configuration.voters:
        return _without(following, gone)
    # Learners that go are nobody's quorum: they go at once, the voters with the joint one.
    following = _without(following, gone - set(configuration.voters))
    return structs.replace(following, voters_outgoing=configuration.voters)


def leave_joint(configuration: Configuration) -> Configuration:
    """What follows a joint configuration that is committed: C_new."""
    staying = {*configuration.voters, *configuration.learners}
    gone = set(configuration.voters_outgoing) - staying
    return _without(structs.replace(configuration, voters_outgoing=()), gone)


def _members(configuration: Configuration, wanted: MembershipChange) -> tuple[Member, ...]:
    """All members with their new addresses, those who are to go included."""
    members = {member.id: member for member in configuration.members}
    for added in wanted.add:
        if added.id in configuration.removed:
            raise ChangeRefusedError(RefusalReason.ID_REMOVED)
        if added.id in members:
            raise ChangeRefusedError(RefusalReason.ID_TAKEN)
        members[added.id] = added
    for updated in wanted.update:
        known = members.get(updated.id)
        if known is None:
            raise ChangeRefusedError(RefusalReason.UNKNOWN_MEMBER)
        members[updated.id] = structs.replace(known, address=updated.address)
    gone = set(wanted.remove)
    if not gone <= members.keys():
        raise ChangeRefusedError(RefusalReason.UNKNOWN_MEMBER)
    staying = [member for member in members.values() if member.id not in gone]
    if len({member.name for member in staying}) < len(staying):
        raise ChangeRefusedError(RefusalReason.NAME_TAKEN)
    if len({member.address for member in staying}) < len(staying):
        raise ChangeRefusedError(RefusalReason.ADDRESS_TAKEN)
    return tuple(members[member_id] for member_id in sorted(members))


def _check_parts(
    configuration: Configuration, wanted: MembershipChange, learners: set[int]
) -> None:
    members = {member.id for member in configuration.members} | learners
    for member_id in wanted.promote:
        if member_id in configuration.voters:
            raise ChangeRefusedError(RefusalReason.ALREADY_VOTER)
        if member_id not in learners:
            raise ChangeRefusedError(RefusalReason.UNKNOWN_MEMBER)
    for entry in wanted.joining:
        if entry.id in configuration.voters:
            raise ChangeRefusedError(RefusalReason.ALREADY_VOTER)
        others = members - {entry.id}
        if entry.id not in learners or (entry.replaces and entry.replaces not in others):
            raise ChangeRefusedError(RefusalReason.UNKNOWN_MEMBER)


def _without(configuration: Configuration, gone: set[int]) -> Configuration:
    """`gone` are no members any more, and never will be again."""
    return structs.replace(
        configuration,
        members=tuple(member for member in configuration.members if member.id not in gone),
        removed=_sorted({*configuration.removed, *gone}),
    )


def _generation(configuration: Configuration, wanted: MembershipChange) -> Generation | UnsetType:
    """The same; who comes in is no longer awaited."""
    generation = generation_of(configuration)
    if configuration.generation is UNSET:
        return UNSET
    names = {member.name for member in wanted.add}
    awaited = tuple(member for member in generation.awaited if member.name not in names)
    return structs.replace(generation, awaited=awaited)


def _sorted(ids: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(ids))


def promotion(configuration: Configuration, entry: Joining) -> MembershipChange:
    """The change that makes a learner that has caught up a voter; whom it replaces goes with it."""
    members = {member.id for member in configuration.members}
    gone = (entry.replaces,) if entry.replaces in members else ()
    return MembershipChange(promote=(entry.id,), remove=gone)
