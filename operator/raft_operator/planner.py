"""Decides: from the cluster as it was seen and as it should be follows the one next step.

Nothing here looks at a clock, asks anybody or remembers anything. After each step the engine looks
again, so a step that was cut off, done twice or undone by somebody else is just another cluster to
begin from. Rules are asked in order, the first one with an answer wins: what is broken comes before
what is missing, that before what is too much, and that before what is old.

Two things hold for every answer. A voter is stopped or removed only while a majority of the others
is healthy. And a volume is deleted only when the id in it is none of the members' any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from raft_operator.actions import (
    Action,
    DeleteVolume,
    DropRescue,
    HandOver,
    Join,
    LabelPod,
    Leave,
    Move,
    Promote,
    Remember,
    ReplacePod,
    Rescue,
    RestartPod,
    SetPods,
    Wait,
    WriteObjects,
)
from raft_operator.model import Agent, Desired, Member, Membership, Observed, Pod

Step: TypeAlias = Action | Wait | None

# With so few voters none can be spared, and one that is to be updated is stopped all the same.
_NONE_TO_SPARE = 2


def plan(observed: Observed, desired: Desired) -> Step:
    """The next step; None when the cluster is as it should be."""
    if desired.is_paused:
        return None
    for rule in _BEFORE_QUORUM:
        step = rule(observed, desired)
        if step is not None:
            return step
    membership = observed.membership
    if membership is None:
        return _without_quorum(observed)
    if observed.rescue:
        return DropRescue()
    if membership.is_pending:
        return Wait("a change of the members is on its way")
    for settled_rule in _WITH_QUORUM:
        step = settled_rule(observed, desired, membership)
        if step is not None:
            return step
    return None


# --- what needs no quorum


def _write_objects(observed: Observed, _desired: Desired) -> Step:
    return WriteObjects(observed.drift) if observed.drift else None


def _found(observed: Observed, desired: Desired) -> Step:
    """One seed founds the cluster; it is alone until everybody knows that no other may."""
    if not observed.is_remembered:
        # Volumes that are there already may hold a cluster, and none may be founded beside it.
        is_new = not observed.claims and observed.wanted_pods is None
        return Remember(founds=is_new)
    if observed.wanted_pods is None:
        return SetPods(1 if observed.founds else _needed_pods(observed, desired))
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
    needed = _needed_pods(observed, desired)
    if observed.wanted_pods is not None and observed.wanted_pods < needed:
        return SetPods(needed)
    answering = {pod.ordinal for pod in observed.pods if pod.agent is not None}
    if answering >= set(range(needed)):
        return Remember(founds=True)
    return Wait("volumes of a former cluster are there: all of them have to be looked into")


def _run_pods(observed: Observed, desired: Desired) -> Step:
    """As many pods as are asked for, and as the members need that there are."""
    needed = _needed_pods(observed, desired)
    if observed.wanted_pods is not None and observed.wanted_pods < needed:
        return SetPods(needed)
    return None


def _needed_pods(observed: Observed, desired: Desired) -> int:
    """Whoever is a member still needs its pod, also above what is asked for."""
    names: set[str] = set()
    if observed.membership is not None:
        names.update(member.name for member in observed.membership.members)
    else:
        for pod in observed.pods:
            names.update(pod.agent.members if pod.agent is not None else ())
    ordinals = [ordinal for name in names if (ordinal := desired.ordinal(name)) is not None]
    if not observed.cluster_id:
        # Nobody knows yet whose volumes these are.
        ordinals += [claim.ordinal for claim in observed.claims]
    return max([desired.replicas - 1, *ordinals]) + 1


def _find_volume(observed: Observed, _desired: Desired) -> Step:
    """A pod whose claim went while it waited for a node is made anew, which makes a claim, too."""
    for pod in observed.pods:
        if not pod.is_scheduled and not pod.is_stopping and observed.claim(pod.ordinal) is None:
            return RestartPod(pod.name, pod.uid, "its volume claim is gone")
    return None


def _unstick(observed: Observed, _desired: Desired) -> Step:
    """A pod that never came up with a former template can be replaced at any time."""
    for pod in observed.pods:
        if pod.is_outdated and not pod.is_stopping and pod.agent is None and not pod.has_started:
            return RestartPod(pod.name, pod.uid, "it never came up with the former template")
    return None


_BEFORE_QUORUM: tuple[Callable[[Observed, Desired], Step], ...] = (
    _write_objects,
    _found,
    _run_pods,
    _find_volume,
    _unstick,
)


def _without_quorum(observed: Observed) -> Step:
    """Nothing is touched, but for the rescue that people ask for by the cluster's own name."""
    if observed.rescue and observed.rescue == observed.cluster_id:
        return Rescue(observed.cluster_id)
    return Wait("no leader with a quorum answers")


# --- what needs one


def _label_pods(observed: Observed, _desired: Desired, membership: Membership) -> Step:
    """The budget counts voters by their label."""
    for pod in observed.pods:
        member = membership.by_name(pod.name)
        role = member.role if member is not None else ""
        if pod.role != role and not pod.is_stopping:
            return LabelPod(pod.name, pod.uid, role)
    return None


def _remove_dead(observed: Observed, _desired: Desired, membership: Membership) -> Step:
    """A member that can't come back as who it was leaves first, so that its name is free."""
    for pod in observed.pods:
        member = membership.by_name(pod.name)
        if member is None:
            continue
        why = ""
        blank = _blank(pod)
        if blank is not None and blank.id != member.id:
            why = "its volume is a new one, and what it had promised is gone"
        elif pod.node_is_lost and pod.agent is None and not member.is_healthy:
            why = "its node is gone"
        if why:
            if not _majority_without(membership, member):
                return Wait(f"{member.name} can't be removed without a healthy majority")
            return Leave(member.name, membership.configuration, why)
    return None


def _majority_without(membership: Membership, member: Member) -> bool:
    """Whether the others have a majority, of the voters before and after (§6)."""
    healthy = sum(voter.is_healthy for voter in membership.voters if voter.id != member.id)
    return healthy > len(membership.voters) // 2 or not member.is_voter


def _replace_dead(observed: Observed, desired: Desired, membership: Membership) -> Step:
    """A pod whose volume holds a removed id, or is out of reach for good, begins with an empty
    one."""
    for pod in observed.pods:
        if membership.by_name(pod.name) is not None:
            continue
        is_lost = pod.node_is_lost and pod.agent is None
        is_away = pod.ordinal >= desired.replicas
        if is_lost and (not is_away or pod.ordinal >= (observed.wanted_pods or 0)):
            keeps = is_away and not desired.deletes_scaled_volumes
            return _replacement(pod, observed, membership, keeps, "its node is gone")
        if not is_away and _holds_removed_id(pod, observed, membership):
            if (
                pod.agent is not None
                and pod.agent.cluster_id
                and not desired.deletes_scaled_volumes
            ):
                return Wait(f"the volume of {pod.name} holds a removed id: delete it, or the claim")
            return _replacement(pod, observed, membership, False, "its id is refused for ever")
    return None


def _holds_removed_id(pod: Pod, observed: Observed, membership: Membership) -> bool:
    """Whether nobody needs what is in the pod's volume. What a recovery has left behind may be
    needed by people."""
    agent = pod.agent
    if agent is None or pod.is_stopping or agent.id not in membership.removed:
        return False
    knows = agent.is_removed and agent.cluster_id == observed.cluster_id
    return not agent.is_superseded and (knows or not agent.cluster_id)


def _replacement(
    pod: Pod, observed: Observed, membership: Membership, keeps_volume: bool, why: str
) -> ReplacePod:
    claim = observed.claim(pod.ordinal)
    uid = "" if claim is None or claim.is_going or keeps_volume else claim.uid
    return ReplacePod(
        pod=pod.name,
        uid=pod.uid,
        ordinal=pod.ordinal,
        claim=uid,
        configuration=membership.configuration,
        is_forced=pod.node_is_lost,
        why=why,
    )


def _follow_address(observed: Observed, _desired: Desired, membership: Membership) -> Step:
    for pod in observed.pods:
        member = membership.by_name(pod.name)
        if member is None or pod.agent is None or pod.agent.id != member.id or not pod.address:
            continue
        if member.address != pod.address:
            return Move(member.name, pod.address, membership.configuration)
    return None


def _bring_in(observed: Observed, desired: Desired, membership: Membership) -> Step:
    """Pods that are no members yet join one by one, each as a learner that is promoted once it has
    caught up."""
    for member in membership.members:
        ordinal = desired.ordinal(member.name)
        if member.is_voter or ordinal is None or ordinal >= desired.replicas:
            continue
        if member.state != "joining":
            return Promote(member.name, membership.configuration)
        if member.health != "unreachable":
            return Wait(f"{member.name} catches up, and becomes a voter then")
        # One at a time, but what may be needed to bring it up comes further down.
        return None
    for pod in _fresh(observed, desired, membership):
        return Join(pod.name, pod.address, membership.configuration)
    return None


def _fresh(observed: Observed, desired: Desired, membership: Membership) -> Iterator[Pod]:
    for pod in observed.pods:
        is_wanted = pod.ordinal < desired.replicas and membership.by_name(pod.name) is None
        if is_wanted and pod.address and _blank(pod) is not None:
            yield pod


def _blank(pod: Pod) -> Agent | None:
    """Its agent, when that waits to be joined: its volume has no log."""
    agent = pod.agent
    return agent if agent is not None and not agent.cluster_id and not pod.is_stopping else None


def _shrink(observed: Observed, desired: Desired, membership: Membership) -> Step:
    """The highest ordinals leave, one by one, and only while all who stay are healthy. Nobody else
    can be chosen, since a StatefulSet always drops its highest pod."""
    leaving = [
        (ordinal, member)
        for member in membership.members
        if (ordinal := desired.ordinal(member.name)) is not None and ordinal >= desired.replicas
    ]
    if leaving:
        _, highest = max(leaving, key=lambda found: found[0])
        rest = [member for member in membership.members if member != highest]
        gone = {member.name for _, member in leaving}
        for member in rest:
            if member.name not in gone and not (member.is_voter and member.is_healthy):
                return Wait(f"{member.name} has to be healthy before {highest.name} leaves")
        # Those that stay may lack one that waits for the node of one that leaves.
        if sum(member.is_voter and member.is_healthy for member in rest) < desired.replicas:
            return Wait(f"too few are healthy for {highest.name} to leave")
        return Leave(highest.name, membership.configuration, "fewer members are asked for")
    needed = _needed_pods(observed, desired)
    if observed.wanted_pods is not None and observed.wanted_pods > needed:
        return SetPods(needed)
    return None


def _clear_volumes(observed: Observed, desired: Desired, membership: Membership) -> Step:
    """A volume that came back after the next growth would hold an id that is refused for ever."""
    if not desired.deletes_scaled_volumes:
        return None
    for claim in observed.claims:
        is_away = claim.ordinal >= (observed.wanted_pods or 0) and not claim.is_going
        if is_away and observed.pod(claim.ordinal) is None:
            return DeleteVolume(claim.ordinal, claim.uid, membership.configuration)
    return None


def _update(observed: Observed, desired: Desired, membership: Membership) -> Step:
    """Outdated pods are made anew one by one: broken ones, learners, followers, and the leader
    last, after a hand-over."""
    outdated = [pod for pod in observed.pods if pod.is_outdated]
    if not outdated:
        return _missing(observed, desired, membership)
    pod = min(outdated, key=lambda pod: _order(pod, membership))
    if pod.is_stopping:
        return Wait(f"{pod.name} stops, to be made anew")
    member = membership.by_name(pod.name)
    if member is None or member.health == "unreachable":
        return RestartPod(pod.name, pod.uid, "it is outdated, and takes no part")
    others = [other.name for other in observed.pods if other != pod and not _is_well(other)]
    if others or len(observed.pods) < (observed.wanted_pods or 0):
        return Wait(f"all other pods have to be up before {pod.name} is made anew")
    few = len(membership.voters) <= _NONE_TO_SPARE and all(m.is_healthy for m in membership.members)
    if not membership.can_spare(pod.name) and not few:
        return Wait(f"all others have to have caught up before {pod.name} is made anew")
    if membership.leader == pod.name:
        heirs = [voter.name for voter in membership.voters if voter.name != pod.name]
        if heirs:
            return HandOver(pod.name, heirs[0])
    return RestartPod(pod.name, pod.uid, "it is outdated")


def _order(pod: Pod, membership: Membership) -> tuple[int, int]:
    """Whose turn it is first."""
    member = membership.by_name(pod.name)
    if member is None or member.health == "unreachable" or pod.agent is None:
        turn = 0
    elif not member.is_voter:
        turn = 1
    else:
        turn = 2 if membership.leader != pod.name else 3
    return turn, -pod.ordinal


def _is_well(pod: Pod) -> bool:
    return pod.agent is not None and not pod.is_stopping


def _missing(observed: Observed, desired: Desired, membership: Membership) -> Step:
    """What is left to wait for once nothing is left to do."""
    for ordinal in range(desired.replicas):
        member = membership.by_name(desired.member(ordinal))
        if member is None:
            return Wait(f"{desired.member(ordinal)} has to come up, to become a member")
        if not member.is_healthy:
            return Wait(f"{member.name} is {member.health}")
    if any(pod.ordinal >= desired.replicas for pod in observed.pods):
        return Wait("pods of former members end")
    return None


_WITH_QUORUM: tuple[Callable[[Observed, Desired, Membership], Step], ...] = (
    _label_pods,
    _remove_dead,
    _replace_dead,
    _follow_address,
    _bring_in,
    _shrink,
    _clear_volumes,
    _update,
)
