"""One cluster's engine: looks, asks the planner, does the one thing that it says, and tells.

It remembers nothing that matters: whatever it was doing when it ended, the next one looks, and goes
on from what there is.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Awaitable, Callable

import msgspec

from raft_agent.tls.files import TlsFiles
from raft_operator import deeds, observation, resources, status
from raft_operator.actions import Step, Wait
from raft_operator.agents import Agents, AgentsError
from raft_operator.credentials import Credentials, CredentialsError
from raft_operator.kube import CLUSTERS, Conflict, Kube, KubeError, Object
from raft_operator.model import Desired, Observed
from raft_operator.names import ClusterKey
from raft_operator.nodes import Nodes
from raft_operator.observation import View
from raft_operator.planner import plan
from raft_operator.resources import Owner
from raft_operator.spec import MAX_REPLICAS, InvalidSpec, Spec, read_spec
from raft_operator.target import Target, next_target, read_target
from raft_operator.tell import tell
from raft_operator.wanted import Drift, compare
from raft_operator.words import words_of

log = logging.getLogger("raft.operator")

# Until the next look. Events of pods and of the cluster itself bring it forward; agents send none.
SOON_S, WORKING_S, IDLE_S, FAILED_S = 0.2, 2.0, 30.0, 5.0
# An election takes less. A look amid one is no news.
_ELECTION_LOOKS = 3
_ELECTION_PAUSE_S = 0.4

Connect = Callable[[TlsFiles], Agents]
Clock = Callable[[], datetime.datetime]
Sleep = Callable[[float], Awaitable[None]]


class Engine:
    """For the cluster `key`. `nodes` are shared with other engines."""

    def __init__(
        self,
        key: ClusterKey,
        *,
        kube: Kube,
        credentials: Credentials,
        connect: Connect,
        nodes: Nodes,
        clock: Clock,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.key = key
        self._kube = kube
        self._credentials = credentials
        self._connect = connect
        self._nodes = nodes
        self._clock = clock
        self._sleep = sleep
        self._agents: Agents | None = None

    async def close(self) -> None:
        if self._agents is not None:
            await self._agents.close()
        self._credentials.close()

    async def turn(self) -> float:
        """One look and at most one step. How many seconds to wait for the next turn."""
        try:
            return await self._turn()
        except Conflict as conflict:
            log.debug("%s: %s", self.key, conflict)
            return SOON_S
        except (KubeError, AgentsError) as error:
            log.warning("%s: %s", self.key, error)
            return FAILED_S

    async def _turn(self) -> float:
        resource = await self._kube.get(CLUSTERS, self.key.namespace, self.key.name)
        if resource is None or "deletionTimestamp" in resource["metadata"]:
            return IDLE_S
        owner = Owner(self.key, resource["metadata"]["uid"])
        try:
            spec = read_spec(self.key.name, resource.get("spec") or {})
            view = await observation.look(self._kube, resource, owner, spec)
            due = await self._look_at_credentials(view)
        except InvalidSpec as error:
            return await self._refuse(resource, "InvalidSpec", str(error))
        except CredentialsError as error:
            return await self._refuse(resource, "CertificatesFailed", str(error))
        await self._nodes.refresh()
        await self._ask_agents(view)
        observed = observation.observed(view, self._nodes)
        drift = await compare(self._kube, view, observed.membership, due)
        observed = msgspec.structs.replace(observed, drift=drift.names)
        return await self._go_on(view, observed, drift)

    async def _go_on(self, view: View, observed: Observed, drift: Drift) -> float:
        now = self._clock()
        generation = view.resource["metadata"]["generation"]
        locked = read_target(view.status)
        target = next_target(locked, view.spec, generation, observed, now=now)
        desired = desired_of(view.spec, target, self.key)
        step = plan(observed, desired)
        # Before anything is done: the target is to be known to whoever goes on with it.
        await self._write_status(
            view.resource, status.status_of(view, observed, desired, target, step, now=now)
        )
        if step is None:
            return IDLE_S
        if isinstance(step, Wait):
            return WORKING_S
        await self._do(step, view, drift)
        return SOON_S

    async def _do(self, step: Step, view: View, drift: Drift) -> None:
        if step is None or isinstance(step, Wait):
            return
        log.info("%s: %s", self.key, words_of(step))
        try:
            await deeds.Deeds(self._kube, self._agents, self._credentials, view, drift).do(step)
        except AgentsError as error:
            what = f"{words_of(step)}: {error}"
            await tell(self._kube, view.resource, "Refused", what, self._clock(), is_bad=True)
            raise
        if deeds.is_news(step):
            kind = type(step).__name__
            await tell(self._kube, view.resource, kind, words_of(step), self._clock())

    async def _look_at_credentials(self, view: View) -> bool:
        """Whether certificates are due; and connects with what there is."""
        highest = [self.key.ordinal(pod["metadata"]["name"]) or 0 for pod in view.pods]
        count = min(max([view.spec.replicas - 1, *highest]) + 1, MAX_REPLICAS)
        names = [self.key.pod(ordinal) for ordinal in range(count)]
        hosts = {name: resources.hosts_of(self.key, name) for name in names}
        due = await self._credentials.look(view.owner, view.spec, hosts)
        files = self._credentials.files()
        if self._agents is None and files is not None:
            self._agents = self._connect(files)
        return due

    async def _ask_agents(self, view: View) -> None:
        if self._agents is None:
            return
        for attempt in range(_ELECTION_LOOKS):
            if attempt:
                await self._sleep(_ELECTION_PAUSE_S)
            await observation.ask_agents(view, self._agents)
            knows = any(answer.cluster_id for answer in view.answers.values())
            if view.listed is not None or not knows:
                return

    async def _refuse(self, resource: Object, reason: str, message: str) -> float:
        now = self._clock()
        await self._write_status(resource, status.refusal_status(resource, reason, message, now))
        return IDLE_S

    async def _write_status(self, resource: Object, wanted: Object) -> None:
        """Only what differs is written, and nothing when nothing does."""
        before = resource.get("status") or {}
        if before == wanted:
            return
        gone: Object = {name: None for name in before if name not in wanted}
        metadata = resource["metadata"]
        changes: Object = {
            "metadata": {"resourceVersion": metadata["resourceVersion"]},
            "status": {**wanted, **gone},
        }
        written = await self._kube.patch(
            CLUSTERS, self.key.namespace, self.key.name, changes, "status"
        )
        for condition in status.transitions(before, wanted):
            is_bad = (condition["type"] == status.DEGRADED) == (condition["status"] == status.TRUE)
            text = f"{condition['type']} is {condition['status']}: {condition['message']}"
            await tell(
                self._kube, resource, condition["reason"], text, self._clock(), is_bad=is_bad
            )
        resource["metadata"]["resourceVersion"] = written["metadata"]["resourceVersion"]


def desired_of(spec: Spec, target: Target, key: ClusterKey) -> Desired:
    return Desired(
        name=key.name,
        replicas=target.replicas,
        deletes_scaled_volumes=spec.storage.when_scaled == "Delete",
        is_paused=spec.paused,
    )
