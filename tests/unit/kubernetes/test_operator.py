"""kopf and all: the operator over HTTP against an API server by kmock."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import kopf
import pytest

from raft_operator.handlers import Operator
from raft_operator.kube import (
    CLAIMS,
    CLUSTERS,
    CONFIG_MAPS,
    PODS,
    SECRETS,
    STATEFUL_SETS,
    ApiServer,
    KubeError,
    Object,
)
from tests.unit.kubernetes.api_server import (
    NAMESPACE,
    Controllers,
    Emulator,
    Rafts,
    add_cluster,
    connect,
    serving,
)
from tests.unit.kubernetes.test_permissions import KOPF

# Where the operator has no rights to the whole cluster, it does not look at definitions.
CRD_WATCH = {("watch", "apiextensions.k8s.io", "customresourcedefinitions")}

_WITHIN_S = 300.0
_FIFTY_WITHIN_S = 1200.0


class Bench:
    """A server, controllers, and an operator that can be ended and started."""

    def __init__(self, emulator: Emulator, url: str) -> None:
        self.emulator = emulator
        self.url = url
        self.api = connect(url)
        self.rafts = Rafts()
        self._tasks: list[asyncio.Task[Any]] = []
        self._operator: asyncio.Task[Any] | None = None
        self._stop = asyncio.Event()

    async def start(self) -> None:
        self._tasks.append(asyncio.create_task(Controllers(self.api, self.rafts).run()))
        await self.start_operator()

    async def start_operator(self) -> None:
        async def connect_kube() -> ApiServer:
            return connect(self.url)

        operator = Operator(
            (NAMESPACE,), connect_kube=connect_kube, connect_agents=self.rafts.connect
        )
        server = self.url.rstrip("/")

        async def log_in(**_: Any) -> kopf.ConnectionInfo:
            return kopf.ConnectionInfo(server=server)

        kopf.on.login(registry=operator.registry)(log_in)
        self._stop = asyncio.Event()
        ready = asyncio.Event()
        settings = kopf.OperatorSettings()
        # It would end this process, too, which may have another operator by then.
        settings.process.ultimate_exiting_timeout = None
        self._operator = asyncio.create_task(
            kopf.operator(
                registry=operator.registry,
                settings=settings,
                standalone=True,
                namespaces=[NAMESPACE],
                stop_flag=self._stop,
                ready_flag=ready,
            )
        )
        await ready.wait()

    async def end_operator(self) -> None:
        self._stop.set()
        if self._operator is not None:
            await self._operator
            self._operator = None

    async def close(self) -> None:
        await self.end_operator()
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self.api.close()

    async def at_rest(self) -> int:
        """How many clusters are there, with nothing left to do."""
        return sum(map(is_at_rest, await self.api.list(CLUSTERS, NAMESPACE)))


def is_at_rest(found: Object) -> bool:
    conditions = found.get("status", {}).get("conditions", [])
    reasons = {condition["type"]: condition["reason"] for condition in conditions}
    return (reasons.get("Available"), reasons.get("Progressing")) == (
        "QuorumHealthy",
        "TargetReached",
    )


@contextlib.asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    async with serving() as (emulator, url):
        found = Bench(emulator, url)
        await found.start()
        try:
            yield found
        finally:
            await found.close()


async def until(is_so: Callable[[], Awaitable[bool]], within_s: float = _WITHIN_S) -> None:
    """Fails when it is not so for very long, which is no measure of speed."""
    async with asyncio.timeout(within_s):
        while True:
            # A server that is busy is asked again.
            with contextlib.suppress(KubeError):
                if await is_so():
                    return
            await asyncio.sleep(0.3)


def test_kopf_brings_a_cluster_up_and_takes_it_down() -> None:
    async def run() -> None:
        async with bench() as found:
            await add_cluster(found.api, "kv", storage={"whenDeleted": "Delete"})

            async def is_up() -> bool:
                return await found.at_rest() == 1

            await until(is_up)
            watched = {call for call in found.emulator.calls if call[0] == "watch"}
            assert watched | CRD_WATCH == {call for call in KOPF if call[0] == "watch"}
            assert len(found.rafts.by_name["kv"].voters()) == 3
            secret = await found.api.get(SECRETS, NAMESPACE, "kv-certificates")
            assert secret is not None
            assert {"ca.pem", "kv-0.pem", "kv-0-key.pem", "kv-2.pem"} <= secret["data"].keys()
            await found.api.delete(CLUSTERS, NAMESPACE, "kv")

            async def has_no_stateful_set() -> bool:
                return await found.api.list(STATEFUL_SETS, NAMESPACE) == []

            async def is_gone() -> bool:
                return await found.api.get(CLUSTERS, NAMESPACE, "kv") is None

            await until(has_no_stateful_set)
            # What belongs to it goes by Kubernetes' own garbage collection.
            for pod in await found.api.list(PODS, NAMESPACE):
                await found.api.delete(PODS, NAMESPACE, pod["metadata"]["name"])
            await until(is_gone)
            assert await found.api.list(CLAIMS, NAMESPACE) == []

    asyncio.run(run())


COUNT = 50


@pytest.mark.long
def test_fifty_clusters_come_up_at_once_also_when_the_operator_ends_amid_that() -> None:
    names = [f"c{number:02d}" for number in range(COUNT)]

    async def run() -> None:
        async with bench() as found:
            for name in names:
                await add_cluster(found.api, name)

            async def are_founded() -> bool:
                rafts = found.rafts.by_name
                return sum(bool(rafts[name].cluster) for name in rafts) > COUNT // 2

            async def are_at_rest() -> bool:
                return await found.at_rest() == COUNT

            await until(are_founded, within_s=_FIFTY_WITHIN_S)
            await found.end_operator()
            await found.start_operator()
            await until(are_at_rest, within_s=_FIFTY_WITHIN_S)
            assert all(raft.founded == 1 for raft in found.rafts.by_name.values())
            assert all(len(found.rafts.by_name[name].voters()) == 3 for name in names)

    asyncio.run(run())


@pytest.mark.long
def test_the_operator_needs_little_memory_for_fifty_clusters(tmp_path: Path) -> None:
    """The real process, with a connection tried to each of 150 agents, none of which is there."""

    async def run() -> None:
        async with serving() as (_, url):
            api = connect(url)
            rafts = Rafts()
            controllers = Controllers(api, rafts, address="127.0.0.1")
            playing = asyncio.create_task(controllers.run())
            for number in range(COUNT):
                await add_cluster(api, f"c{number:02d}", ports={"raft": 1, "http": 2})
                await remember(api, f"c{number:02d}")
            config = tmp_path / "kubeconfig"
            config.write_text(json.dumps(kubeconfig(url)))
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "raft_operator.main",
                "--namespace",
                NAMESPACE,
                env={**os.environ, "KUBECONFIG": str(config)},
            )
            try:

                async def have_all_pods() -> bool:
                    clusters = await api.list(CLUSTERS, NAMESPACE)
                    counts = [found.get("status", {}).get("replicas", 0) for found in clusters]
                    return counts == [3] * COUNT

                await until(have_all_pods, within_s=_FIFTY_WITHIN_S)
                status = Path(f"/proc/{process.pid}/status").read_text()
                resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
                assert int(resident.split()[1]) < 200 * 1024, resident
            finally:
                process.terminate()
                await process.wait()
                playing.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await playing
                await api.close()

    asyncio.run(run())


async def remember(api: ApiServer, name: str) -> None:
    """As if the cluster had been founded: then its pods are wanted without their agents' word."""
    data = {"bootstrap": "false", "cluster-id": "c0ffee"}
    metadata = {"name": f"{name}-config", "namespace": NAMESPACE}
    await api.create(CONFIG_MAPS, NAMESPACE, {"metadata": metadata, "data": data})


def kubeconfig(url: str) -> Object:
    return {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": {"server": url.rstrip("/")}}],
        "users": [{"name": "me", "user": {}}],
    }
