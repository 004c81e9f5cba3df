"""The status of a RaftCluster: what was seen, and conditions whose reasons programs can rely on.

Pure: the same view gives the same status, so that nothing is written while nothing changes.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import msgspec

from raft_agent.api.protocol import HealthMember
from raft_operator.actions import Step, Wait
from raft_operator.kube import Object
from raft_operator.model import Desired, Observed
from raft_operator.observation import View, address_of, is_ready, node_of, problem_of
from raft_operator.target import Target
from raft_operator.times import text_of, time_of
from raft_operator.words import words_of

AVAILABLE, PROGRESSING, DEGRADED = "Available", "Progressing", "Degraded"
TRUE, FALSE, UNKNOWN = "True", "False", "Unknown"
_PORT_WORDS = ("free ports", "ddress already in use")


class Verdict(msgspec.Struct, frozen=True):
    """One condition, but for when it came about."""

    kind: str
    status: str
    reason: str
    message: str


def status_of(
    view: View,
    observed: Observed,
    desired: Desired,
    target: Target,
    step: Step,
    *,
    now: datetime.datetime,
) -> Object:
    """The whole status."""
    before = view.status
    generation = view.resource["metadata"]["generation"]
    progressing = _progressing(before, step, view, target, now)
    verdicts = (
        _available(view, observed, desired),
        progressing,
        _degraded(view, observed, step, progressing),
    )
    listed, health = view.listed, view.health
    found: Object = {
        "observedGeneration": generation,
        "target": target.to_status(),
        "clusterId": observed.cluster_id,
        "leader": listed.leader if listed is not None else None,
        "term": health.term if health is not None else before.get("term"),
        "replicas": len(view.pods),
        "readyReplicas": sum(is_ready(pod) for pod in view.pods),
        "voters": _voters(view, before),
        "selector": view.key.selector_text(),
        "members": _members(view),
        "conditions": conditions(before, verdicts, generation, now),
    }
    return {name: value for name, value in found.items() if value not in (None, "")}


def refusal_status(resource: Object, reason: str, message: str, now: datetime.datetime) -> Object:
    """The status of a cluster that can't be worked on; the rest of it stays as it was."""
    before = resource.get("status") or {}
    generation = resource["metadata"]["generation"]
    available = _found(before, AVAILABLE)
    verdicts = (
        Verdict(
            AVAILABLE,
            available.get("status", UNKNOWN),
            available.get("reason", reason),
            available.get("message", message),
        ),
        Verdict(PROGRESSING, FALSE, reason, message),
        Verdict(DEGRADED, TRUE, reason, message),
    )
    changed = conditions(before, verdicts, generation, now)
    return {**before, "observedGeneration": generation, "conditions": changed}


def conditions(
    before: Mapping[str, Any],
    verdicts: tuple[Verdict, ...],
    generation: int,
    now: datetime.datetime,
) -> list[Object]:
    """With the time at which each last became what it is."""
    found = []
    for verdict in verdicts:
        old = _found(before, verdict.kind)
        is_same = old.get("status") == verdict.status
        found.append(
            {
                "type": verdict.kind,
                "status": verdict.status,
                "reason": verdict.reason,
                "message": verdict.message,
                "observedGeneration": generation,
                "lastTransitionTime": old["lastTransitionTime"] if is_same else text_of(now),
            }
        )
    return found


def transitions(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Object]:
    """The conditions that have another status or reason than before."""
    return [
        condition
        for condition in after.get("conditions", [])
        if any(
            _found(before, condition["type"]).get(part) != condition[part]
            for part in ("status", "reason")
        )
    ]


def _found(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    return next((item for item in status.get("conditions") or [] if item["type"] == kind), {})


def _voters(view: View, before: Mapping[str, Any]) -> int | None:
    if view.listed is None:
        return before.get("voters")
    return sum(member.role == "voter" for member in view.listed.members)


# --- conditions


def _available(view: View, observed: Observed, desired: Desired) -> Verdict:
    membership = observed.membership
    if membership is None:
        return _not_available(view, observed)
    missing = [
        name
        for ordinal in range(desired.replicas)
        if (found := membership.by_name(name := desired.member(ordinal))) is None
        or not found.is_voter
    ]
    ill = [member.name for member in membership.members if not member.is_healthy]
    if not missing and not ill:
        text = f"all {len(membership.voters)} voters are healthy"
        return Verdict(AVAILABLE, TRUE, "QuorumHealthy", text)
    parts = []
    if ill:
        parts.append(f"not healthy: {', '.join(ill)}")
    if missing:
        parts.append(f"not voters yet: {', '.join(missing)}")
    return Verdict(AVAILABLE, TRUE, "QuorumAvailable", "; ".join(parts))


def _not_available(view: View, observed: Observed) -> Verdict:
    if not observed.cluster_id:
        text = "the cluster has not been founded yet"
        return Verdict(AVAILABLE, FALSE, "NotFounded", text)
    if not view.answers and any(is_ready(pod) for pod in view.pods):
        text = "no agent answers the operator, though their pods are ready: is the raft port open?"
        return Verdict(AVAILABLE, UNKNOWN, "Unreachable", text)
    return Verdict(AVAILABLE, FALSE, "QuorumLost", _lost(view, observed))


def _lost(view: View, observed: Observed) -> str:
    answering = ", ".join(sorted(view.answers)) or "nobody"
    rescue = ""
    if observed.rescue and observed.rescue != observed.cluster_id:
        rescue = (
            f"; the rescue names {observed.rescue}, and this cluster is {observed.cluster_id}: "
            "nothing is done"
        )
    return f"no leader with a quorum; {answering} answers{rescue}"


def _progressing(
    before: Mapping[str, Any], step: Step, view: View, target: Target, now: datetime.datetime
) -> Verdict:
    if view.spec.paused:
        return Verdict(PROGRESSING, FALSE, "Paused", "spec.paused is set: nothing is changed")
    text = words_of(step)
    if step is None:
        return Verdict(PROGRESSING, FALSE, "TargetReached", text)
    old = _found(before, PROGRESSING)
    since = time_of(old.get("lastTransitionTime")) if old.get("status") == TRUE else now
    began = max(since or now, target.since)
    deadline = datetime.timedelta(seconds=view.spec.progress_deadline_seconds)
    is_late = now - began >= deadline
    return Verdict(PROGRESSING, TRUE, "DeadlineExceeded" if is_late else "Working", text)


def _degraded(view: View, observed: Observed, step: Step, progressing: Verdict) -> Verdict:
    """The gravest of what is wrong."""
    problems = {
        pod["metadata"]["name"]: problem for pod in view.pods if (problem := problem_of(pod))
    }
    told = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
    if any(word in told for word in _PORT_WORDS):
        return Verdict(DEGRADED, TRUE, "PortConflict", told)
    is_late = progressing.reason == "DeadlineExceeded"
    if not observed.cluster_id:
        is_stuck = isinstance(step, Wait) and "different clusters" in step.why
        if is_stuck or is_late:
            return Verdict(DEGRADED, TRUE, "BootstrapFailed", f"{words_of(step)}; {told}")
    elif observed.membership is None:
        return Verdict(DEGRADED, TRUE, "QuorumLost", _lost(view, observed))
    foreign = _foreign(observed)
    if foreign:
        return Verdict(DEGRADED, TRUE, "ForeignData", foreign)
    if is_late:
        return Verdict(DEGRADED, TRUE, "DeadlineExceeded", f"{progressing.message}; {told}")
    if told:
        return Verdict(DEGRADED, TRUE, "PodProblem", told)
    return Verdict(DEGRADED, FALSE, "AsExpected", "nothing is known to be wrong")


def _foreign(observed: Observed) -> str:
    """Volumes that nobody may touch but people."""
    for pod in observed.pods:
        agent = pod.agent
        if agent is None or not agent.cluster_id:
            continue
        if agent.cluster_id != observed.cluster_id:
            return f"the volume of {pod.name} belongs to another cluster: {agent.cluster_id}"
        if agent.is_superseded:
            return (
                f"{pod.name} was left behind by a recovery, and its data may be wanted: save them, "
                "then delete its volume claim and its pod"
            )
    return ""


# --- members


def _members(view: View) -> list[Object]:
    listed = {member.name: member for member in (view.listed.members if view.listed else ())}
    health = {member.id: member for member in (view.health.members if view.health else ())}
    before = {member["name"]: member for member in view.status.get("members") or []}
    pods = {pod["metadata"]["name"]: pod for pod in view.pods}
    found = []
    for name in sorted({*listed, *pods}):
        pod, member = pods.get(name), listed.get(name)
        old = before.get(name, {})
        node = node_of(pod) if pod is not None else ""
        entry: Object = {"name": name, "node": node or old.get("node", "")}
        if view.listed is None:
            kept = ("id", "address", "role", "version")
            entry |= {part: old[part] for part in kept if part in old}
            entry["health"] = "unknown"
        elif member is None:
            address = address_of(pod, view.spec) if pod is not None else ""
            entry |= {"address": address, "role": "none", "health": "waiting"}
        else:
            entry |= {"id": member.id, "address": member.address, "role": member.role}
            entry |= _health(health.get(member.id))
        found.append({part: value for part, value in entry.items() if value != ""})
    return found


def _health(member: HealthMember | None) -> Object:
    if member is None:
        return {"health": "unreachable"}
    lag = member.lag or 0
    # It moves with every write: only who is behind has one, and only roughly.
    shown = 0 if member.state == "healthy" or lag <= 0 else 1 << (lag - 1).bit_length()
    return {"health": member.state, "lag": shown, "version": member.agent}
