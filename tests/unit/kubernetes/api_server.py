"""An API server by kmock, over HTTP, with as much of controllers and kubelets as clusters need to
come up: pods and claims for StatefulSets, and agents in them that know each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import kmock
from kubernetes.aio import client

from raft_agent.api.protocol import HealthResult, MemberListResult, RecoverResult, StatusResult
from raft_agent.tls.files import TlsFiles
from raft_operator.agents import Place
from raft_operator.kube import CLAIMS, CLUSTERS, PODS, STATEFUL_SETS, ApiServer, KubeError, Object
from raft_operator.names import GROUP, KIND, PLURAL, VERSION, ClusterKey
from tests.unit.kubernetes.raft_model import Process, Raft, Volume
from tests.unit.kubernetes.world_agents import WorldAgents

NAMESPACE = "space"
_RESOURCES = {
    f"{GROUP}/{VERSION}/{PLURAL}": (KIND, True),
    "v1/pods": ("Pod", True),
    "v1/persistentvolumeclaims": ("PersistentVolumeClaim", True),
    "v1/configmaps": ("ConfigMap", True),
    "v1/services": ("Service", True),
    "v1/secrets": ("Secret", True),
    "v1/events": ("Event", True),
    "v1/nodes": ("Node", False),
    "v1/namespaces": ("Namespace", False),
    "apps/v1/statefulsets": ("StatefulSet", True),
    "policy/v1/poddisruptionbudgets": ("PodDisruptionBudget", True),
    "apiextensions.k8s.io/v1/customresourcedefinitions": ("CustomResourceDefinition", False),
}


class Emulator(kmock.KubernetesEmulator):
    """kmock, which gives objects neither uid nor version by itself. `calls`: what was asked for,
    as (verb, group, resource)."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: set[tuple[str, str, str]] = set()
        self._numbers = itertools.count(1)
        for name, (kind, is_namespaced) in _RESOURCES.items():
            self.resources[name] = {
                "kind": kind,
                "namespaced": is_namespaced,
                "verbs": ["list", "watch", "get", "create", "update", "patch", "delete"],
                "subresources": {"status"} if name.endswith(PLURAL) else set(),
            }

    async def _handle(self, request: Any) -> Any:
        if request.resource is not None and request.resource.plural is not None:
            self._note(request)
            if request.method == "PUT":
                # kmock knows no replacement; what is left out stays, which nothing here minds.
                # Changed in place: its filters only know the requests that it has seen.
                object.__setattr__(request, "method", kmock.method.PATCH)
                object.__setattr__(request, "action", kmock.action.UPDATE)
            if isinstance(request.data, dict) and request.method in ("POST", "PUT", "PATCH"):
                number = str(next(self._numbers))
                metadata = request.data.setdefault("metadata", {})
                metadata["resourceVersion"] = number
                if request.method == "POST":
                    metadata["uid"] = f"uid-{number}"
                    metadata.setdefault("generation", 1)
        try:
            return await super()._handle(request)
        finally:
            # It looks for each request among all that there ever were, over and over.
            self._requests[:] = [other for other in self._requests if other is not request]

    def _note(self, request: Any) -> None:
        verbs = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
        verb = verbs.get(request.method)
        if verb is None:
            is_watch = "watch" in (request.params or {})
            verb = "watch" if is_watch else ("get" if request.name else "list")
        part = f"/{request.subresource}" if request.subresource else ""
        plural = f"{request.resource.plural}{part}"
        self.calls.add((verb, request.resource.group, plural))


def connect(url: str) -> ApiServer:
    configuration = client.Configuration(host=url.rstrip("/"))
    configuration.retries = None
    return ApiServer(client.ApiClient(configuration))


class Rafts:
    """A model of Raft for each cluster, by name."""

    def __init__(self) -> None:
        self.by_name: dict[str, Raft] = {}

    def of(self, member: str) -> Raft:
        return self.by_name.setdefault(member.rpartition("-")[0], Raft())

    def connect(self, _files: TlsFiles) -> ManyAgents:
        return ManyAgents(self)


class ManyAgents:
    """The agents of all clusters: each name leads to those of its own."""

    def __init__(self, rafts: Rafts) -> None:
        self._rafts = rafts

    def _of(self, name: str) -> WorldAgents:
        return WorldAgents(self._rafts.of(name))

    async def close(self) -> None:
        pass

    async def look(self, places: Sequence[Place]) -> Mapping[str, StatusResult]:
        return await self._of(places[0].name).look(places) if places else {}

    async def members(self, place: Place) -> MemberListResult:
        return await self._of(place.name).members(place)

    async def health(self, place: Place) -> HealthResult:
        return await self._of(place.name).health(place)

    async def confirm(self, leader: Place, configuration: int) -> None:
        await self._of(leader.name).confirm(leader, configuration)

    async def join(self, place: Place, joiner: Place, if_configuration: int) -> str:
        return await self._of(place.name).join(place, joiner, if_configuration)

    async def promote(self, place: Place, name: str, if_configuration: int) -> str:
        return await self._of(place.name).promote(place, name, if_configuration)

    async def move(self, place: Place, member: Place, if_configuration: int) -> str:
        return await self._of(place.name).move(place, member, if_configuration)

    async def leave(self, place: Place, name: str, if_configuration: int) -> str:
        return await self._of(place.name).leave(place, name, if_configuration)

    async def hand_over(self, leader: Place, to: str) -> None:
        await self._of(leader.name).hand_over(leader, to)

    async def rescue(self, place: Place, *, accept_data_loss: bool) -> RecoverResult:
        return await self._of(place.name).rescue(place, accept_data_loss=accept_data_loss)


class Controllers:
    """Makes pods and claims, and runs agents in them, until it is cancelled."""

    def __init__(
        self, api: ApiServer, rafts: Rafts, every_s: float = 0.3, address: str = ""
    ) -> None:
        self._api = api
        self._address = address  # of all pods; "": each has its own
        self._rafts = rafts
        self._every_s = every_s
        self._addresses = itertools.count(1)
        self._volumes: dict[str, Volume] = {}

    async def run(self) -> None:
        while True:
            # A server that is busy is asked again.
            with contextlib.suppress(KubeError):
                pods = await self._api.list(PODS, NAMESPACE)
                for found in await self._api.list(STATEFUL_SETS, NAMESPACE):
                    await self._run(found, pods)
            for raft in self._rafts.by_name.values():
                raft.catch_up()
            await asyncio.sleep(self._every_s)

    async def _run(self, found: Object, pods: list[Object]) -> None:
        key = ClusterKey(NAMESPACE, found["metadata"]["name"])
        count = found["spec"]["replicas"]
        ours = {
            pod["metadata"]["name"]: pod
            for pod in pods
            if key.ordinal(pod["metadata"]["name"]) is not None
        }
        for ordinal in range(count):
            if key.pod(ordinal) not in ours:
                await self._make(key, ordinal, found["spec"]["template"])
        for name in ours:
            if (key.ordinal(name) or 0) >= count:
                await self._api.delete(PODS, NAMESPACE, name)
                self._rafts.of(name).stop(f"{ours[name]['status']['podIP']}:5555")

    async def _make(self, key: ClusterKey, ordinal: int, template: Object) -> None:
        name = key.pod(ordinal)
        claim_name = key.volume_claim(ordinal)
        raft = self._rafts.of(name)
        if await self._api.get(CLAIMS, NAMESPACE, claim_name) is None:
            metadata = {"name": claim_name, "labels": key.selector(), "namespace": NAMESPACE}
            await self._api.create(CLAIMS, NAMESPACE, {"metadata": metadata})
            self._volumes[claim_name] = raft.make_volume()
        number = next(self._addresses)
        address = self._address or f"10.0.{number // 250}.{number % 250}"
        ready = [{"type": "Ready", "status": "True"}]
        pod = {
            "metadata": {**template["metadata"], "name": name, "namespace": NAMESPACE},
            "spec": {"nodeName": f"node-{number}"},
            "status": {"podIP": address, "conditions": ready},
        }
        await self._api.create(PODS, NAMESPACE, pod)
        process = Process(name, f"{address}:5555", self._volumes[claim_name])
        raft.start(process, founds=ordinal == 0 and not raft.cluster)


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[Emulator, str]]:
    """The emulator and its address, on the loopback."""
    async with Emulator() as emulator, kmock.Server(emulator):
        yield emulator, str(emulator.url)


async def add_cluster(api: ApiServer, name: str, **spec: Any) -> None:
    """As `kubectl apply` would."""
    resource = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"image": "agent:1", **spec},
    }
    await api.create(CLUSTERS, NAMESPACE, resource)
