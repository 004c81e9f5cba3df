"""How the cluster version is raised, seen from the leader. Pure.

Once the connections with all members, learners too, say that each knows a later version, the
leader has every one of them *promise* it, itself too: a promise is on the member's disk before it
is given, and from then on no program that does not know the version opens that data directory. When
all have promised, and only then, the leader puts `RaiseVersion` into its log, for the members that
its log has at that moment. A leader with a promise lets nobody join who does not know the version.
So when the version rises, wherever, every member knows it, whatever crashed or was put back on the
way; and as it is raised by the log, it holds for each command everywhere or nowhere.

Until a member has promised, its program may be put back to the one before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import msgspec

from raft_agent.versions import VersionError, Versions, advise, other_version


class Ask(msgspec.Struct, frozen=True):
    """Have these members promise to know `version`."""

    version: int
    members: tuple[int, ...]


class Raise(msgspec.Struct, frozen=True):
    """Put RaiseVersion(version) into the log, before anything else happens to that."""

    version: int


Step: TypeAlias = Ask | Raise | None


class Upgrade:
    """What a leader knows of promises; one object for each time that a node leads."""

    def __init__(self) -> None:
        self._promised: dict[int, int] = {}

    def promised(self, member: int, version: int) -> None:
        """A member's promise is on its disk."""
        self._promised[member] = max(version, self._promised.get(member, 1))

    def next_step(
        self, members: Iterable[int], known: Mapping[int, Versions], in_force: int
    ) -> Step:
        """What is to be done towards the latest version that all `members` know, if that is beyond
        the one `in_force`. `known`: what those know to whom a connection stands, and this node.
        """
        members = tuple(members)
        if not members or any(member not in known for member in members):
            return None
        version = min(known[member].newest for member in members)
        if version <= in_force:
            return None
        missing = tuple(m for m in members if self._promised.get(m, 1) < version)
        return Ask(version, missing) if missing else Raise(version)


def raised(in_force: int, version: int, known: Versions) -> int:
    """The version that is in force after RaiseVersion(version) was applied. Raises VersionError
    when this program, of the versions `known`, can't go on from there."""
    if version > known.newest:
        what = other_version("what the log holds from here on", version, known)
        raise VersionError(f"{what}. {advise(version, known)}")
    return max(in_force, version)
