"""Which number of members is worked towards: locked until it is reached, or its time is over.

A change of mind half-way would have members that have just joined leave again. Everything else in
the spec is taken over at once, because it may be what mends the way to the target.
"""

from __future__ import annotations

import datetime
from typing import Any

import msgspec

from raft_operator.model import Membership, Observed
from raft_operator.spec import Spec
from raft_operator.times import text_of, time_of


class Target(msgspec.Struct, frozen=True):
    """`generation`: of the spec that asked for it; `since`: when work on it began; `was_reached`:
    what has happened to the cluster since is no work on the way there."""

    replicas: int
    generation: int
    since: datetime.datetime
    was_reached: bool = False

    def to_status(self) -> dict[str, Any]:
        return {
            "replicas": self.replicas,
            "generation": self.generation,
            "since": text_of(self.since),
            "reached": self.was_reached,
        }


def read_target(status: dict[str, Any]) -> Target | None:
    """The target in a status; None when there is none, or none that makes sense."""
    found = status.get("target") or {}
    since = time_of(found.get("since"))
    if since is None or not isinstance(found.get("replicas"), int):
        return None
    is_reached = found.get("reached") is True
    return Target(found["replicas"], found.get("generation", 0), since, is_reached)


def next_target(
    locked: Target | None,
    spec: Spec,
    generation: int,
    observed: Observed,
    *,
    now: datetime.datetime,
) -> Target:
    """The target in force from now on."""
    wanted = Target(spec.replicas, generation, now)
    if locked is None:
        return wanted
    if is_reached(locked.replicas, observed):
        locked = msgspec.structs.replace(locked, was_reached=True)
    if locked.replicas == spec.replicas:
        return locked
    deadline = datetime.timedelta(seconds=spec.progress_deadline_seconds)
    return wanted if locked.was_reached or now - locked.since >= deadline else locked


def is_reached(replicas: int, observed: Observed) -> bool:
    """Whether there are just as many voters, and as many pods."""
    membership: Membership | None = observed.membership
    if membership is None or membership.is_pending:
        return False
    pods = {pod.ordinal: pod.name for pod in observed.pods}
    if pods.keys() != set(range(replicas)):
        return False
    # There may be others that are none of our pods.
    roles = {member.name: member.role for member in membership.members}
    return all(roles.get(name) == "voter" for name in pods.values())
