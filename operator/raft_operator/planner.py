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

from raft_operator import groundwork
from raft_operator.actions import (
    DropRescue,
    HandOver,
    Join,
    LabelPod,
    Leave,
    Move,
    Promote,
    Rescue,
    RestartPod,
    SetPods,
    Step,
    Wait,
)
from raft_operator.groundwork import blank, clear_volumes, needed_pods, replacement
from raft_operator.model import Desired, Member, Membership, Observed, Pod

# With so few voters none can be spared, and one that is to be updated is stopped all the same.
_NONE_TO_SPARE = 2


def plan(observed: Observed, desired: Desired) -> Step:
    """The next step; None when the cluster is as it should be."""
    if desired.is_paused:
        return None
    for rule in groundwork.RULES:
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


def _without_quorum(observed: Observed) -> Step:
    """Nothing is touched, but for the rescue that people ask for by the cluster's own name."""
    if observed.rescue and observed.rescue == observed.cluster_id:
        return Rescue(observed.cluster_id)
    return Wait("no leader with a quorum answers")


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
        waiting = blank(pod)
        if waiting is not None and waiting.id != member.id:
            why = "its volume is a new one, and what it had promised is gone"
        elif pod.agent is None and not member.is_healthy:
            why = _out_of_reach(pod, observed)
        if why and _may_leave(member, membership):
            return Leave(member.name, membership.configuration, why)
    return None


def _may_leave(member: Member, membership: Membership) -> bool:
    """Whether a majority of those that are left is healthy."""
    rest = [voter for voter in membership.voters if voter != member]
    return sum(voter.is_healthy for voter in rest) > len(rest) // 2


def _replace_dead(observed: Observed, desired: Desired, membership: Membership) -> Step:
    """A pod whose volume holds a removed id, or is out of reach for good, begins with an empty
    one."""
    for pod in observed.pods:
        if membership.by_name(pod.name) is not None:
            continue
        why = "" if pod.agent is not None else _out_of_reach(pod, observed)
        is_away = pod.ordinal >= desired.replicas
        if why and (not is_away or pod.ordinal >= (observed.wanted_pods or 0)):
            return replacement(pod, observed, desired, why)
        if not is_away and _holds_removed_id(pod, observed, membership):
            if (
                pod.agent is not None
                and pod.agent.cluster_id
                and not desired.deletes_scaled_volumes
            ):
                return Wait(f"the volume of {pod.name} holds a removed id: delete it, or the claim")
            return replacement(pod, observed, desired, "its id is refused for ever")
    return None


def _out_of_reach(pod: Pod, observed: Observed) -> str:
    """Why the pod can never come up with the volume that it has; "" when it may."""
    if pod.node_is_lost:
        return "its node is gone"
    claim = observed.claim(pod.ordinal)
    if not pod.is_stuck or claim is None:
        return ""
    taken = [other.name for other in observed.pods if other.node and other.node == claim.home]
    return f"{taken[0]} is on the node that its volume is on" if taken else ""


def _holds_removed_id(pod: Pod, observed: Observed, membership: Membership) -> bool:
    """Whether nobody needs what is in the pod's volume. What a recovery has left behind may be
    needed by people."""
    agent = pod.agent
    if agent is None or pod.is_stopping or agent.id not in membership.removed:
        return False
    knows = agent.is_removed and agent.cluster_id == observed.cluster_id
    return not agent.is_superseded and (knows or not agent.cluster_id)


def _mend_outdated(observed: Observed, _desired: Desired, membership: Membership) -> Step:
    """Outdated pods that take no part are made anew at once: another template may be what they
    lack."""
    for pod in observed.pods:
        member = membership.by_name(pod.name)
        takes_part = member is not None and member.health != "unreachable"
        if pod.is_outdated and not pod.is_stopping and not takes_part:
            return RestartPod(pod.name, pod.uid, "it is outdated, and takes no part")
    return None


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
        is_waiting = is_wanted and bool(pod.address) and blank(pod) is not None
        if is_waiting and not _takes_a_node(pod, observed, desired, membership):
            yield pod


def _takes_a_node(pod: Pod, observed: Observed, desired: Desired, membership: Membership) -> bool:
    """Whether a member that has no node now has its volume where this pod is. As members the two
    could never be up together."""
    for claim in observed.claims:
        other = observed.pod(claim.ordinal)
        is_homeless = claim.home == pod.node and (other is None or not other.node)
        if is_homeless and membership.by_name(desired.member(claim.ordinal)) is not None:
            return True
    return False


def _shrink(observed: Observed, desired: Desired, membership: Membership) -> Step:
    """The highest ordinals leave, one by one, and only while all who stay are healthy. Nobody else
    can be chosen, since a StatefulSet always drops its highest pods."""
    needed = needed_pods(observed, desired)
    if observed.wanted_pods is not None and observed.wanted_pods > needed:
        # Nobody's pods; their nodes may be what another one waits for.
        return SetPods(needed)
    leaving = [
        (ordinal, member)
        for member in membership.members
        if (ordinal := desired.ordinal(member.name)) is not None and ordinal >= desired.replicas
    ]
    if leaving:
        # One that is down first: it counts against those that are left.
        _, first = min(leaving, key=lambda found: (found[1].is_healthy, -found[0]))
        rest = [member for member in membership.members if member != first]
        gone = {member.name for _, member in leaving}
        for member in rest:
            if member.name not in gone and not (member.is_voter and member.is_healthy):
                return Wait(f"{member.name} has to be healthy before {first.name} leaves")
        # Those that stay may lack one that waits for the node of one that leaves.
        well = sum(member.is_voter and member.is_healthy for member in rest)
        if well < desired.replicas or not _may_leave(first, membership):
            return Wait(f"too few are healthy for {first.name} to leave")
        return Leave(first.name, membership.configuration, "fewer members are asked for")
    return None


def _update(observed: Observed, desired: Desired, membership: Membership) -> Step:
    """Outdated pods are made anew one by one: learners, followers, and the leader last, after a
    hand-over."""
    outdated = [pod for pod in observed.pods if pod.is_outdated]
    if not outdated:
        return _missing(observed, desired, membership)
    pod = min(outdated, key=lambda pod: _order(pod, membership))
    if pod.is_stopping:
        return Wait(f"{pod.name} stops, to be made anew")
    up = {other.name for other in observed.pods if _is_well(other)} | {pod.name}
    down = [m.name for m in membership.members if desired.ordinal(m.name) is not None]
    down = [name for name in down if name not in up]
    if down:
        # The leader may not have noticed yet.
        return Wait(f"{down[0]} has to be up before {pod.name} is made anew")
    homeless = [other.name for other in observed.pods if not other.node]
    if homeless:
        return Wait(f"{homeless[0]} finds no node, and would take that of {pod.name}")
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
    if pod.is_stopping or member is None or not member.is_healthy:
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
    _mend_outdated,
    _follow_address,
    _bring_in,
    _shrink,
    clear_volumes,
    _update,
)
