"""Carries out what the planner has decided.

Each deed begins with a claim: the StatefulSet is written under the resource version that was
planned with. Where somebody has done something since, another operator or Kubernetes itself, that
fails, nothing is done, and the next look sees what became of it. Changes of the members name the
configuration that they were planned for in the same way.
"""

from __future__ import annotations

from raft_operator import actions, resources
from raft_operator.actions import Action
from raft_operator.agents import Agents, AgentsError, Place
from raft_operator.credentials import Credentials
from raft_operator.kube import BUDGETS, CLAIMS, CLUSTERS, PODS, STATEFUL_SETS, Kube, Object
from raft_operator.names import CLAIM_ANNOTATION, NODE_ANNOTATION, RESCUE_ANNOTATION, ROLE_LABEL
from raft_operator.observation import View
from raft_operator.wanted import CERTIFICATES, Drift
from raft_operator.words import words_of


class Deeds:
    """For one look: `view` is what was seen, `drift` what is to be written. All deeds raise
    KubeError or AgentsError, and may have been done then all the same."""

    def __init__(
        self, kube: Kube, agents: Agents | None, credentials: Credentials, view: View, drift: Drift
    ) -> None:
        self._kube = kube
        self._agents = agents
        self._credentials = credentials
        self._view = view
        self._drift = drift

    async def do(self, step: Action) -> None:
        match step:
            case actions.WriteObjects():
                await self._write_objects()
            case actions.Remember(founds, cluster_id):
                await self._remember(founds, cluster_id)
            case actions.SetPods(count):
                await self._set_pods(step, count)
            case actions.LabelPod(pod, uid, role):
                labels = {"uid": uid, "labels": {ROLE_LABEL: role or None}}
                namespace = self._view.key.namespace
                await self._kube.patch(PODS, namespace, pod, {"metadata": labels})
            case actions.NoteHome(ordinal, uid, node):
                noted = {"uid": uid, "annotations": {NODE_ANNOTATION: node}}
                key = self._view.key
                claim = key.volume_claim(ordinal)
                await self._kube.patch(CLAIMS, key.namespace, claim, {"metadata": noted})
            case actions.DropRescue():
                await self._drop_rescue()
            case _:
                await self._claim(step)
                await self._do_claimed(step)

    async def _do_claimed(self, step: Action) -> None:
        match step:
            case actions.RestartPod(pod, uid):
                await self._kube.delete(PODS, self._view.key.namespace, pod, uid)
            case actions.ReplacePod():
                await self._replace(step)
            case actions.DeleteVolume(ordinal, uid, configuration):
                await self._confirm(configuration)
                await self._delete_claim(ordinal, uid)
            case actions.Rescue():
                await self._rescue()
            case _:
                await self._change_members(step)

    async def _change_members(self, step: Action) -> None:
        agents, leader = self._reachable(), self._leader()
        match step:
            case actions.Join(member, address, configuration):
                await agents.join(leader, Place(member, address), configuration)
            case actions.Promote(member, configuration):
                await agents.promote(leader, member, configuration)
            case actions.Move(member, address, configuration):
                await agents.move(leader, Place(member, address), configuration)
            case actions.Leave(member, configuration):
                await agents.leave(leader, member, configuration)
            case actions.HandOver(_, to):
                await agents.hand_over(leader, to)
            case _:
                raise AssertionError(f"an action that nobody carries out: {step}")

    # --- Kubernetes

    async def _claim(self, step: Action) -> None:
        found = self._view.stateful_set
        if found is None:
            raise AssertionError(f"{step} was planned without a StatefulSet")
        key = self._view.key
        changes = {
            "metadata": {
                "resourceVersion": found["metadata"]["resourceVersion"],
                "annotations": {CLAIM_ANNOTATION: words_of(step)},
            }
        }
        await self._kube.patch(STATEFUL_SETS, key.namespace, key.stateful_set, changes)

    async def _write_objects(self) -> None:
        if CERTIFICATES in self._drift.names:
            await self._credentials.write()
        for wanted, found in self._drift.objects:
            await self._kube.put(wanted, found)
        if self._drift.unwanted_budget is not None:
            metadata = self._drift.unwanted_budget["metadata"]
            kind = self._drift.budget_kind or BUDGETS
            namespace, name = metadata["namespace"], metadata["name"]
            await self._kube.delete(kind, namespace, name, metadata["uid"])

    async def _remember(self, founds: bool, cluster_id: str) -> None:
        view = self._view
        wanted = resources.config_map(
            view.owner, view.spec, bootstrap=founds, cluster_id=cluster_id
        )
        await self._kube.put(wanted, view.config_map)

    async def _set_pods(self, step: Action, count: int) -> None:
        view = self._view
        wanted = resources.stateful_set(view.owner, view.spec, count)
        wanted["metadata"]["annotations"][CLAIM_ANNOTATION] = words_of(step)
        await self._kube.put(wanted, view.stateful_set)

    async def _replace(self, step: actions.ReplacePod) -> None:
        if step.configuration:
            await self._confirm(step.configuration)
        if step.claim:
            await self._delete_claim(step.ordinal, step.claim)
        grace_s = 0 if step.is_forced else None
        await self._kube.delete(PODS, self._view.key.namespace, step.pod, step.uid, grace_s)

    async def _delete_claim(self, ordinal: int, uid: str) -> None:
        key = self._view.key
        await self._kube.delete(CLAIMS, key.namespace, key.volume_claim(ordinal), uid)

    # --- agents

    async def _confirm(self, configuration: int) -> None:
        """What is about to be deleted can't be made again, so the leader that said that nobody
        needs it has to be one still."""
        await self._reachable().confirm(self._leader(), configuration)

    async def _drop_rescue(self) -> None:
        metadata = self._view.resource["metadata"]
        changes: Object = {
            "metadata": {
                "resourceVersion": metadata["resourceVersion"],
                "annotations": {RESCUE_ANNOTATION: None},
            }
        }
        key = self._view.key
        await self._kube.patch(CLUSTERS, key.namespace, key.name, changes)

    async def _rescue(self) -> None:
        """One wish, one attempt: it is taken back before anything is done."""
        await self._drop_rescue()
        agents = self._reachable()
        refusals: list[str] = []
        for name in sorted(self._view.answers):
            place = self._view.place(name)
            if place is None:
                continue
            found = await agents.rescue(place, accept_data_loss=False)
            if found.best == name and not found.refusal:
                await agents.rescue(place, accept_data_loss=True)
                return
            refusals.append(f"{name}: {found.refusal or f'{found.best} has more'}")
        raise AgentsError(f"nobody can go on alone: {'; '.join(refusals) or 'nobody answers'}")

    def _leader(self) -> Place:
        membership = self._view.listed
        name = membership.leader if membership is not None else None
        place = self._view.place(name) if name else None
        if place is not None:
            return place
        # A follower passes the change on.
        for other in sorted(self._view.answers):
            place = self._view.place(other)
            if place is not None:
                return place
        raise AgentsError("no agent answers")

    def _reachable(self) -> Agents:
        if self._agents is None:
            raise AgentsError("there are no certificates to talk to the agents with")
        return self._agents


def is_news(step: Action) -> bool:
    """Whether people want to know of it; objects and labels are written without a word."""
    quiet = (actions.WriteObjects, actions.LabelPod, actions.NoteHome, actions.Remember)
    return not isinstance(step, quiet)
