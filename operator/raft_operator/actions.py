"""The single steps that the planner can ask for. Each can be cut off anywhere, and made twice."""

from __future__ import annotations

from typing import TypeAlias

import msgspec


class Wait(msgspec.Struct, frozen=True):
    """Nothing is to be done until something happens; `why` is for people."""

    why: str


class WriteObjects(msgspec.Struct, frozen=True):
    """Write the objects that are missing or differ from what they should be."""

    names: tuple[str, ...]


class Remember(msgspec.Struct, frozen=True):
    """Note in the ConfigMap whether a pod with an empty volume founds the cluster, or which cluster
    it is; never both."""

    founds: bool
    cluster_id: str = ""


class SetPods(msgspec.Struct, frozen=True):
    """Have the StatefulSet run pods with ordinals below `count`."""

    count: int


class LabelPod(msgspec.Struct, frozen=True):
    """Say on the pod what its member is: "voter", "learner" or "" for none."""

    pod: str
    uid: str
    role: str


class NoteHome(msgspec.Struct, frozen=True):
    """Note on a volume claim at which node its pod runs."""

    ordinal: int
    uid: str
    node: str


class Join(msgspec.Struct, frozen=True):
    """Have the agent at the address added, as a learner that becomes a voter."""

    member: str
    address: str
    configuration: int


class Promote(msgspec.Struct, frozen=True):
    """Have a learner become a voter once it has caught up."""

    member: str
    configuration: int


class Move(msgspec.Struct, frozen=True):
    """Have a member be dialled at another address."""

    member: str
    address: str
    configuration: int


class Leave(msgspec.Struct, frozen=True):
    """Have a member removed; its id is refused for ever."""

    member: str
    configuration: int
    why: str


class HandOver(msgspec.Struct, frozen=True):
    """Have the leader make `to` the leader."""

    leader: str
    to: str


class RestartPod(msgspec.Struct, frozen=True):
    """Delete the pod, so that it is made anew with the volume that it has."""

    pod: str
    uid: str
    why: str


class ReplacePod(msgspec.Struct, frozen=True):
    """Delete the pod and its volume, which holds nothing that any member needs: the id in it was
    removed for ever, or was never used.

    `configuration` is the one that does not have it, which the leader has to confirm; 0 where the
    agent itself says that its volume is empty. `claim` is the claim's uid, "" when it is gone
    already, or is to stay; `is_forced`: the pod's node can't confirm that it has ended.
    """

    pod: str
    uid: str
    ordinal: int
    claim: str
    configuration: int
    is_forced: bool
    why: str


class DeleteVolume(msgspec.Struct, frozen=True):
    """Delete the volume of a pod that was scaled away."""

    ordinal: int
    uid: str
    configuration: int


class Rescue(msgspec.Struct, frozen=True):
    """Go on from the best survivor, without what only the lost ones had."""

    cluster_id: str


class DropRescue(msgspec.Struct, frozen=True):
    """Take back what people asked for when no quorum answered: one does, and the wish must not wait
    for the next time."""


Action: TypeAlias = (
    WriteObjects
    | Remember
    | SetPods
    | LabelPod
    | NoteHome
    | Join
    | Promote
    | Move
    | Leave
    | HandOver
    | RestartPod
    | ReplacePod
    | DeleteVolume
    | Rescue
    | DropRescue
)

# None: nothing is left to do.
Step: TypeAlias = Action | Wait | None
