"""Looks at one cluster: what Kubernetes has of it, and what its agents say."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from raft_agent.api.protocol import HealthResult, MemberListResult, StatusResult
from raft_operator.agents import Agents, AgentsError, Place
from raft_operator.kube import CLAIMS, CONFIG_MAPS, PODS, STATEFUL_SETS, Kube, Object
from raft_operator.model import Agent, Claim, Member, Membership, Observed, Pod
from raft_operator.names import (
    NODE_ANNOTATION,
    RESCUE_ANNOTATION,
    ROLE_LABEL,
    TEMPLATE_ANNOTATION,
    VOLUME,
    ClusterKey,
)
from raft_operator.nodes import Nodes
from raft_operator.pods import BOOTSTRAP_KEY, CLUSTER_ID_KEY
from raft_operator.resources import Owner, template_hash
from raft_operator.spec import Spec
from raft_operator.times import time_of

# Written by the scheduler, where it chose the node before the volume was made.
_SELECTED_NODE = "volume.kubernetes.io/selected-node"


# The scheduler tries again within seconds, and attaching a volume elsewhere begins after that.
_STUCK = datetime.timedelta(seconds=60)


class View(msgspec.Struct):
    """All that one look has found. `listed` and `health` are what the leader says, None while none
    with a quorum answers."""

    owner: Owner
    spec: Spec
    resource: Object
    config_map: Object | None
    stateful_set: Object | None
    pods: list[Object]
    claims: list[Object]
    answers: Mapping[str, StatusResult] = {}
    listed: MemberListResult | None = None
    health: HealthResult | None = None

    @property
    def key(self) -> ClusterKey:
        return self.owner.key

    @property
    def status(self) -> Object:
        found: Object = self.resource.get("status") or {}
        return found

    def place(self, name: str) -> Place | None:
        """Where the pod of this name is found; None while it has no address."""
        for pod in self.pods:
            if pod["metadata"]["name"] == name:
                address = address_of(pod, self.spec)
                return Place(name, address) if address else None
        return None


async def look(kube: Kube, resource: Object, owner: Owner, spec: Spec) -> View:
    """What Kubernetes has. Raises KubeError."""
    key = owner.key
    selector = key.selector_text()
    config_map = await kube.get(CONFIG_MAPS, key.namespace, key.config_map)
    stateful_set = await kube.get(STATEFUL_SETS, key.namespace, key.stateful_set)
    pods = await kube.list(PODS, key.namespace, selector)
    # After the pods: a claim is made before its pod, so a pod without one has really lost it.
    claims = await kube.list(CLAIMS, key.namespace, selector)
    return View(
        owner=owner,
        spec=spec,
        resource=resource,
        config_map=config_map,
        stateful_set=stateful_set,
        pods=_ours(key, pods),
        claims=_ours(key, claims, prefix=f"{VOLUME}-"),
    )


def _ours(key: ClusterKey, found: Sequence[Object], prefix: str = "") -> list[Object]:
    """Those that are named after an ordinal, in that order."""
    named = [
        (ordinal, item)
        for item in found
        if (ordinal := key.ordinal(item["metadata"]["name"].removeprefix(prefix))) is not None
    ]
    return [item for _, item in sorted(named, key=lambda pair: pair[0])]


async def ask_agents(view: View, agents: Agents) -> None:
    """What the agents say is added to the view; whoever does not answer is left out."""
    names = [pod["metadata"]["name"] for pod in view.pods]
    places = [place for name in names if (place := view.place(name)) is not None]
    view.answers = await agents.look(places)
    by_term = sorted(view.answers.values(), key=lambda answer: -answer.term)
    for answer in by_term:
        if answer.leader is None or answer.removed:
            continue
        place = view.place(answer.node_id)
        if place is None:
            continue
        try:
            health = await agents.health(place)
            listed = await agents.members(place)
        except AgentsError:
            continue
        # Both are the leader's own words, unless none answered in between.
        if health.quorum and health.leader is not None and health.leader == listed.leader:
            view.health, view.listed = health, listed
            return


def observed(view: View, nodes: Nodes) -> Observed:
    """What the planner is told, but for what is to be written."""
    remembered = (view.config_map or {}).get("data") or {}
    annotations = view.resource["metadata"].get("annotations") or {}
    template = template_hash(view.key, view.spec)
    return Observed(
        is_remembered=view.config_map is not None,
        founds=remembered.get(BOOTSTRAP_KEY) == "true",
        cluster_id=remembered.get(CLUSTER_ID_KEY, ""),
        wanted_pods=None if view.stateful_set is None else view.stateful_set["spec"]["replicas"],
        pods=tuple(_pod(view, pod, nodes, template) for pod in view.pods),
        claims=tuple(_claim(view.key, claim) for claim in view.claims),
        membership=_membership(view),
        rescue=annotations.get(RESCUE_ANNOTATION, ""),
    )


def _pod(view: View, pod: Object, nodes: Nodes, template: str) -> Pod:
    metadata, spec = pod["metadata"], view.spec
    name, ordinal = metadata["name"], view.key.ordinal(metadata["name"]) or 0
    answer = view.answers.get(name)
    node, is_stuck = node_of(pod), _is_stuck(pod, nodes.now())
    home = node or _home(view, ordinal)
    after_s = spec.placement.replace_after_seconds
    # A volume that can move will have moved before a pod counts as stuck; and the pods of a node
    # that was deleted are deleted soon, too.
    is_lost = (bool(node) or is_stuck) and nodes.is_lost(home, after_s, is_there=bool(node))
    return Pod(
        name=name,
        ordinal=ordinal,
        uid=metadata["uid"],
        node=node,
        address=address_of(pod, spec),
        is_running=_is_running(pod),
        is_ready=is_ready(pod),
        is_stopping="deletionTimestamp" in metadata,
        is_stuck=is_stuck and after_s > 0,
        is_outdated=(metadata.get("annotations") or {}).get(TEMPLATE_ANNOTATION) != template,
        node_is_lost=is_lost,
        role=(metadata.get("labels") or {}).get(ROLE_LABEL, ""),
        agent=None if answer is None else _agent(answer),
    )


def _agent(answer: StatusResult) -> Agent:
    return Agent(
        id=answer.id,
        cluster_id=answer.cluster_id,
        members=tuple(member.name for member in answer.members),
        is_removed=answer.removed,
        is_superseded=answer.superseded,
    )


def _home(view: View, ordinal: int) -> str:
    """The node that the volume of a pod without a node is on, "" when that is not known."""
    for claim in view.claims:
        if claim["metadata"]["name"] == view.key.volume_claim(ordinal):
            return _home_of(claim)
    return ""


def _home_of(claim: Object) -> str:
    annotations = claim["metadata"].get("annotations") or {}
    return str(annotations.get(NODE_ANNOTATION) or annotations.get(_SELECTED_NODE) or "")


def _claim(key: ClusterKey, claim: Object) -> Claim:
    metadata = claim["metadata"]
    ordinal = key.ordinal(metadata["name"].removeprefix(f"{VOLUME}-"))
    return Claim(
        ordinal=ordinal or 0,
        uid=metadata["uid"],
        home=_home_of(claim),
        is_going="deletionTimestamp" in metadata,
    )


def _membership(view: View) -> Membership | None:
    listed, health = view.listed, view.health
    if listed is None or health is None or listed.leader is None:
        return None
    states = {member.id: member.state for member in health.members}
    return Membership(
        leader=listed.leader,
        configuration=listed.configuration_index,
        members=tuple(
            Member(
                name=member.name,
                id=member.id,
                address=member.address,
                role=member.role,
                state=member.state,
                health=states.get(member.id, "unreachable"),
            )
            for member in listed.members
        ),
        is_pending=listed.pending,
        removed=frozenset(listed.removed),
    )


def node_of(pod: Object) -> str:
    return str(pod["spec"].get("nodeName") or "")


def address_of(pod: Object, spec: Spec) -> str:
    """Where its agent is dialled; on the node's network that is the node's address."""
    status = pod.get("status") or {}
    host = status.get("podIP") or ""
    return f"{host}:{spec.ports.raft}" if host else ""


def _is_stuck(pod: Object, now: datetime.datetime) -> bool:
    for condition in (pod.get("status") or {}).get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            since = time_of(condition.get("lastTransitionTime"))
            return since is not None and now - since >= _STUCK
    return False


def is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def _is_running(pod: Object) -> bool:
    return any("running" in (container.get("state") or {}) for container in _containers(pod))


def _containers(pod: Object) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (pod.get("status") or {}).get("containerStatuses") or []
    return found


def problem_of(pod: Object) -> str:
    """What keeps the pod from running, in the words of Kubernetes or of the agent; "" if nothing is
    known to."""
    for condition in (pod.get("status") or {}).get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{condition.get('reason', '')}: {condition.get('message', '')}"
    for container in _containers(pod):
        waiting = (container.get("state") or {}).get("waiting") or {}
        ended = (container.get("lastState") or {}).get("terminated") or {}
        reason = waiting.get("reason", "")
        if reason not in ("", "ContainerCreating", "PodInitializing"):
            said = (ended.get("message") or waiting.get("message") or "").strip()
            return f"{reason}: {said[-400:]}"
    return ""
