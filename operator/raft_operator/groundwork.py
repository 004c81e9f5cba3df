"""The rules of the planner that need no leader: objects, the founding, pods and their volumes.

What they delete is never part of a cluster: pods in which nothing runs, and volumes in which
nothing is.
"""

from __future__ import annotations

from collections.abc import Callable

from raft_operator.actions import (
    DeleteVolume,
    NoteHome,
    Remember,
    ReplacePod,
    RestartPod,
    SetPods,
    Step,
    Wait,
    WriteObjects,
)
from raft_operator.model import Agent, Claim, Desired, Membership, Observed, Pod


def _write_objects(observed: Observed, _desired: Desired) -> Step:
    return WriteObjects(observed.drift) if observed.drift else None


def _found(observed: Observed, desired: Desired) -> Step:
    """One seed founds the cluster; it is alone until everybody knows that no other may."""
    if not observed.is_remembered:
        # Volumes that are there already may hold a cluster, and none may be founded beside it.
        is_new = not observed.claims and observed.wanted_pods is None
        return Remember(founds=is_new)
    if observed.wanted_pods is None:
        return SetPods(1 if observed.founds else needed_pods(observed, desired))
    if observed.cluster_id:
        return None
    found = {pod.agent.cluster_id for pod in observed.pods if pod.agent and pod.agent.cluster_id}
    if len(found) > 1:
        return Wait(f"the pods hold {len(found)} different clusters: delete the wrong volumes")
    if found:
        return Remember(founds=False, cluster_id=found.pop())
    return _found_without_data(observed, desired)


def _found_without_data(observed: Observed, desired: Desired) -> Step:
    """None of the pods that answer belongs to a cluster."""
    if observed.founds:
        if observed.wanted_pods != 1 or len(observed.pods) > 1:
            return SetPods(1) if observed.wanted_pods != 1 else Wait("all pods but the seed end")
        seed = observed.pod(0)
        if seed is not None and seed.agent is not None and not seed.is_stopping:
            # It was started before it was to found anything.
            return RestartPod(seed.name, seed.uid, "it is to found the cluster")
        return Wait(f"{desired.member(0)} is to found the cluster")
    needed = needed_pods(observed, desired)
    if observed.wanted_pods is not None and observed.wanted_pods < needed:
        return SetPods(needed)
    answering = {pod.ordinal for pod in observed.pods if pod.agent is not None}
    if answering >= set(range(needed)):
        return Remember(founds=True)
    return Wait("volumes of a former cluster are there: all of them have to be looked into")


def _run_pods(observed: Observed, desired: Desired) -> Step:
    """As many pods as are asked for, and as the members need that there are."""
    needed = needed_pods(observed, desired)
    if observed.wanted_pods is None or observed.wanted_pods >= needed:
        return None
    membership = observed.membership
    if membership is not None:
        # A pod with a former one's volume could not even start where another one has its node.
        step = clear_volumes(observed, desired, membership)
        if step is not None:
            return step
        if desired.deletes_scaled_volumes and any(
            claim.is_going and claim.ordinal < needed for claim in _left_over(observed)
        ):
            return Wait("volumes of former members go")
    return SetPods(needed)


def needed_pods(observed: Observed, desired: Desired) -> int:
    """Whoever is a member still needs its pod, also above what is asked for."""
    found = map(desired.ordinal, _known_members(observed))
    ordinals = [ordinal for ordinal in found if ordinal is not None]
    if not observed.cluster_id:
        # Nobody knows yet whose volumes these are.
        ordinals += [claim.ordinal for claim in observed.claims]
    return max([desired.replicas - 1, *ordinals]) + 1


def _find_volume(observed: Observed, _desired: Desired) -> Step:
    """A pod whose claim went while it waited for a node is made anew, which makes a claim, too."""
    for pod in observed.pods:
        if not pod.node and not pod.is_stopping and observed.claim(pod.ordinal) is None:
            return RestartPod(pod.name, pod.uid, "its volume claim is gone")
    return None


def _unstick(observed: Observed, _desired: Desired) -> Step:
    """A pod that does not come up with a former template can be made anew at any time."""
    for pod in observed.pods:
        if pod.is_outdated and not pod.is_stopping and pod.agent is None and not pod.is_running:
            return RestartPod(pod.name, pod.uid, "it does not come up with the former template")
    return None


def _free_nodes(observed: Observed, desired: Desired) -> Step:
    """A pod that is nobody's yet must not keep a member from the node that its volume is on: it
    moves, and leaves an empty volume."""
    members = _known_members(observed)
    for pod in observed.pods:
        claim = observed.claim(pod.ordinal)
        # Without a leader nobody may be there to say that it is a member.
        may_be_member = observed.membership is None or pod.name in members
        if not pod.is_stuck or not may_be_member or claim is None:
            continue
        for other in observed.pods:
            is_there = bool(other.node) and other.node == claim.home
            if is_there and other.name not in members and blank(other) is not None:
                why = f"{pod.name} has its volume on that node"
                return replacement(other, observed, desired, why)
    return None


def _known_members(observed: Observed) -> set[str]:
    """Their names, as the leader says, or as members remember while there is none."""
    if observed.membership is not None:
        return {member.name for member in observed.membership.members}
    answers = (pod.agent.members for pod in observed.pods if pod.agent is not None)
    return {name for names in answers for name in names}


def _note_homes(observed: Observed, _desired: Desired) -> Step:
    """When a pod finds no node later, nobody else knows where its volume is."""
    for pod in observed.pods:
        claim = observed.claim(pod.ordinal)
        if claim is not None and not claim.is_going and pod.node and pod.node != claim.home:
            return NoteHome(claim.ordinal, claim.uid, pod.node)
    return None


# --- what other rules use, too


def clear_volumes(observed: Observed, desired: Desired, membership: Membership) -> Step:
    """A volume that came back after the next growth would hold an id that is refused for ever."""
    if not desired.deletes_scaled_volumes:
        return None
    for claim in _left_over(observed):
        is_used = membership.by_name(desired.member(claim.ordinal)) is not None
        if not claim.is_going and not is_used and observed.pod(claim.ordinal) is None:
            return DeleteVolume(claim.ordinal, claim.uid, membership.configuration)
    return None


def _left_over(observed: Observed) -> list[Claim]:
    """Claims of pods that are not wanted any more."""
    return [claim for claim in observed.claims if claim.ordinal >= (observed.wanted_pods or 0)]


def blank(pod: Pod) -> Agent | None:
    """Its agent, when that waits to be joined: its volume has no log."""
    agent = pod.agent
    return agent if agent is not None and not agent.cluster_id and not pod.is_stopping else None


def replacement(pod: Pod, observed: Observed, desired: Desired, why: str) -> ReplacePod:
    claim, membership = observed.claim(pod.ordinal), observed.membership
    is_kept = pod.ordinal >= desired.replicas and not desired.deletes_scaled_volumes
    uid = "" if claim is None or claim.is_going or is_kept else claim.uid
    return ReplacePod(
        pod=pod.name,
        uid=pod.uid,
        ordinal=pod.ordinal,
        claim=uid,
        configuration=0 if membership is None else membership.configuration,
        is_forced=pod.node_is_lost,
        why=why,
    )


RULES: tuple[Callable[[Observed, Desired], Step], ...] = (
    _write_objects,
    _find_volume,
    _unstick,
    _found,
    _run_pods,
    _note_homes,
    _free_nodes,
)
