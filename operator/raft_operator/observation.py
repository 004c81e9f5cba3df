"""Looks at one cluster: what Kubernetes has of it, and what its agents say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from raft_agent.api.protocol import HealthResult, MemberListResult, StatusResult
from raft_operator.agents import Agents, AgentsError, Place
from raft_operator.kube import CLAIMS, CONFIG_MAPS, PODS, STATEFUL_SETS, Kube, Object
from raft_operator.model import Agent, Claim, Member, Membership, Observed, Pod
from raft_operator.names import (
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

_SELECTED_NODE = "volume.kubernetes.io/selected-node"


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


def observed(view: View, nodes: Nodes, drift: tuple[str, ...]) -> Observed:
    """What the planner is told."""
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
        drift=drift,
        membership=_membership(view),
        rescue=annotations.get(RESCUE_ANNOTATION, ""),
    )


def _pod(view: View, pod: Object, nodes: Nodes, template: str) -> Pod:
    metadata, spec = pod["metadata"], view.spec
    name, ordinal = metadata["name"], view.key.ordinal(metadata["name"]) or 0
    answer = view.answers.get(name)
    home = node_of(pod) or _home(view, ordinal)
    return Pod(
        name=name,
        ordinal=ordinal,
        uid=metadata["uid"],
        address=address_of(pod, spec),
        is_scheduled=bool(node_of(pod)),
        has_started=_has_started(pod),
        is_ready=is_ready(pod),
        is_stopping="deletionTimestamp" in metadata,
        is_outdated=(metadata.get("annotations") or {}).get(TEMPLATE_ANNOTATION) != template,
        node_is_lost=nodes.is_lost(home, spec.placement.replace_after_seconds),
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
    """The node that the volume of a pod without a node is on, "" when that is not known: where the
    scheduler put it, or where its pod was seen last."""
    for claim in view.claims:
        metadata = claim["metadata"]
        if metadata["name"] != view.key.volume_claim(ordinal):
            continue
        selected = (metadata.get("annotations") or {}).get(_SELECTED_NODE, "")
        if selected:
            return str(selected)
        for member in view.status.get("members") or []:
            # What is remembered of another volume says nothing of this one.
            if member["name"] == view.key.pod(ordinal) and member.get("volume") == metadata["uid"]:
                return str(member.get("node", ""))
    return ""


def _claim(key: ClusterKey, claim: Object) -> Claim:
    metadata = claim["metadata"]
    ordinal = key.ordinal(metadata["name"].removeprefix(f"{VOLUME}-"))
    return Claim(ordinal or 0, metadata["uid"], "deletionTimestamp" in metadata)


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


def is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def _has_started(pod: Object) -> bool:
    """Whether its container runs, or has run: then there may be something in its volume."""
    return any(
        "running" in (container.get("state") or {}) or container.get("restartCount", 0) > 0
        for container in _containers(pod)
    )


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
