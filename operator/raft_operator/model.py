"""What the planner is told: the cluster as it was seen, and as it should be. Plain data."""

from __future__ import annotations

import msgspec

from raft_operator.names import ordinal_of


class Agent(msgspec.Struct, frozen=True):
    """What the agent in a pod says of itself. `id` is born with its volume; `cluster_id` is "" for
    one that belongs to no cluster yet. `members`: the names that its own log has, which may be old.
    `is_removed`: it knows that its id is no member any more. `is_superseded`: that is so because
    others went on without it, so its data may be all that is left of something.
    """

    id: str
    cluster_id: str
    members: tuple[str, ...] = ()
    is_removed: bool = False
    is_superseded: bool = False


class Pod(msgspec.Struct, frozen=True):
    """A pod, and what is in it.

    `name` is the member's, too. `node`: where it runs, "" before that is settled. `address`: where
    members reach it, "" before it has one. `is_running`: its container runs, as the kubelet said
    last. `is_stuck`: no node was found for it for long. `is_outdated`: it was made from another
    template than is asked for. `node_is_lost`: its node, or the one that its volume is on, has been
    gone for so long that it counts as gone for good. `role`: its label. `agent` is None when
    nothing answers.
    """

    name: str
    ordinal: int
    uid: str
    node: str = "node"
    address: str = ""
    is_running: bool = True
    is_ready: bool = True
    is_stopping: bool = False
    is_stuck: bool = False
    is_outdated: bool = False
    node_is_lost: bool = False
    role: str = ""
    agent: Agent | None = None


class Claim(msgspec.Struct, frozen=True):
    """The volume claim of the pod with this ordinal; `is_going`: it was deleted, and goes as soon
    as no pod uses it. `home`: the node that is noted on it."""

    ordinal: int
    uid: str
    home: str = "node"
    is_going: bool = False


class Member(msgspec.Struct, frozen=True):
    """A member as the leader knows it. `role` is "voter" or "learner"; `state` "joining" for a
    learner that is to become a voter, "leaving" for a voter on its way out, or "". `health` is
    "healthy", "lagging", "differs" or "unreachable"."""

    name: str
    id: str
    address: str
    role: str = "voter"
    state: str = ""
    health: str = "healthy"

    @property
    def is_voter(self) -> bool:
        return self.role == "voter"

    @property
    def is_healthy(self) -> bool:
        return self.health == "healthy"


class Membership(msgspec.Struct, frozen=True):
    """Who belongs to the cluster, as a leader says who has a quorum. `configuration` is the log
    index of the configuration in force: changes are made to this one or not at all. `is_pending`: a
    change is on its way. `removed`: ids that are refused for ever."""

    leader: str
    configuration: int
    members: tuple[Member, ...]
    is_pending: bool = False
    removed: frozenset[str] = frozenset()

    def by_name(self, name: str) -> Member | None:
        return next((member for member in self.members if member.name == name), None)

    @property
    def voters(self) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member.is_voter)

    def can_spare(self, name: str) -> bool:
        """Whether a majority of the voters is healthy without this one, and everybody else has
        caught up."""
        others = [member for member in self.members if member.name != name]
        healthy = sum(member.is_voter for member in others if member.is_healthy)
        return all(member.is_healthy for member in others) and healthy > len(self.voters) // 2


class Observed(msgspec.Struct, frozen=True):
    """The cluster of one moment, pods in the order of their ordinals.

    `is_remembered`: the ConfigMap is there, in which `founds` says that a seed with an empty volume
    founds the cluster, and `cluster_id` which one it was founded as ("" before). `wanted_pods` is
    what the StatefulSet is told, None when there is none. `drift` names objects that are not as
    they should be. `membership` is None while no leader with a quorum answers. `rescue`: the
    cluster that people want to be rescued, "" for none.
    """

    is_remembered: bool = True
    founds: bool = False
    cluster_id: str = ""
    wanted_pods: int | None = None
    pods: tuple[Pod, ...] = ()
    claims: tuple[Claim, ...] = ()
    drift: tuple[str, ...] = ()
    membership: Membership | None = None
    rescue: str = ""

    def pod(self, ordinal: int) -> Pod | None:
        return next((pod for pod in self.pods if pod.ordinal == ordinal), None)

    def claim(self, ordinal: int) -> Claim | None:
        return next((claim for claim in self.claims if claim.ordinal == ordinal), None)


class Desired(msgspec.Struct, frozen=True):
    """What is worked towards. `name` is the cluster's: pods are called after it."""

    name: str
    replicas: int
    deletes_scaled_volumes: bool = True
    is_paused: bool = False

    def member(self, ordinal: int) -> str:
        return f"{self.name}-{ordinal}"

    def ordinal(self, member: str) -> int | None:
        """None for a member that is none of our pods."""
        return ordinal_of(self.name, member)
