"""What kopf calls: a daemon for each cluster, woken by what happens to it, and what is to be done
at its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import kopf

from raft_operator.agents import RemoteAgents
from raft_operator.credentials import SecretCredentials
from raft_operator.deletion import delete_cluster
from raft_operator.engine import Connect, Engine
from raft_operator.kube import ApiServer, Kube, KubeError, connect
from raft_operator.names import CLUSTER_LABEL, FINALIZER, GROUP, MANAGER, PLURAL, ClusterKey
from raft_operator.nodes import Nodes
from raft_operator.watchdog import Watchdog

log = logging.getLogger("raft.operator")

# The API server ends a watch after this time; one that hangs is given up a little later.
_WATCH_S = 240
_CALL_S = 20
_CANCEL_S = 10.0
_DELETE_AGAIN_S = 2.0


class Operator:
    """All clusters of some namespaces; none given: of all. `registry` is for kopf."""

    def __init__(
        self,
        namespaces: tuple[str, ...],
        *,
        connect_kube: Callable[[], Awaitable[Kube]] = connect,
        connect_agents: Connect = RemoteAgents,
    ) -> None:
        self.namespaces = namespaces
        self.registry = kopf.OperatorRegistry()
        self._connect_kube = connect_kube
        self._connect_agents = connect_agents
        self._kube: Kube | None = None
        self._nodes: Nodes | None = None
        self._watchdog = Watchdog(namespaces, time.monotonic)
        self._watching: asyncio.Task[None] | None = None
        self._wakers: dict[ClusterKey, asyncio.Event] = {}
        self._register()

    def _register(self) -> None:
        registry, clusters = self.registry, (GROUP, PLURAL)
        labels = {CLUSTER_LABEL: kopf.PRESENT}
        kopf.on.startup(registry=registry)(self._start)
        kopf.on.cleanup(registry=registry)(self._end)
        kopf.on.probe(registry=registry, id="watches")(self._probe)
        kopf.daemon(
            *clusters,
            registry=registry,
            cancellation_backoff=_CANCEL_S,
            cancellation_timeout=_CANCEL_S,
        )(self._run)
        kopf.on.delete(*clusters, registry=registry)(self._delete)
        kopf.on.event(*clusters, registry=registry)(self._cluster_event)
        kopf.on.event("v1", "pods", labels=labels, registry=registry)(self._object_event)
        kopf.on.event("apps", "statefulsets", labels=labels, registry=registry)(self._object_event)

    # --- the operator

    async def _start(self, settings: kopf.OperatorSettings, **_: Any) -> None:
        configure(settings, self.namespaces)
        try:
            self._kube = await self._connect_kube()
        except KubeError as error:
            raise kopf.PermanentError(str(error)) from None
        self._nodes = Nodes(self._kube, self._kube.now)
        self._watching = asyncio.create_task(self._watchdog.run(self._kube))

    async def _end(self, **_: Any) -> None:
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        if isinstance(self._kube, ApiServer):
            await self._kube.close()

    async def _probe(self, **_: Any) -> str:
        problem = self._watchdog.problem()
        if problem:
            raise kopf.PermanentError(problem)
        return "alive"

    # --- clusters

    async def _run(
        self, namespace: str | None, name: str, stopped: kopf.DaemonStopped, **_: Any
    ) -> None:
        """Until the cluster or the operator ends, which may cut it off anywhere."""
        if self._kube is None or self._nodes is None:
            raise AssertionError("a daemon runs before the operator has started")
        key = ClusterKey(namespace or "", name)
        # One of its own: the daemon of a former cluster of this name, which kopf has given up, may
        # still be about to end.
        waker = self._wakers[key] = asyncio.Event()
        credentials = SecretCredentials(self._kube, self._kube.now)
        engine = Engine(
            key,
            kube=self._kube,
            credentials=credentials,
            connect=self._connect_agents,
            nodes=self._nodes,
            clock=self._kube.now,
        )
        try:
            while not stopped:
                waker.clear()
                await _pause(await self._turn(engine), waker, stopped)
        finally:
            if self._wakers.get(key) is waker:
                del self._wakers[key]
            await engine.close()

    async def _turn(self, engine: Engine) -> float:
        try:
            return await engine.turn()
        except Exception:
            # Only this cluster stands still, and only for a while: the others go on.
            log.exception("%s: a turn failed", engine.key)
            return 30.0

    async def _delete(self, namespace: str | None, name: str, body: kopf.Body, **_: Any) -> None:
        if self._kube is None:
            raise AssertionError("a handler runs before the operator has started")
        key = ClusterKey(namespace or "", name)
        remaining = await delete_cluster(self._kube, key, body)
        if remaining:
            raise kopf.TemporaryError(f"{remaining} pods end", delay=_DELETE_AGAIN_S)

    # --- what wakes

    async def _cluster_event(self, event: Any, **_: Any) -> None:
        metadata = event["object"]["metadata"]
        self._watchdog.saw(metadata, is_gone=event["type"] == "DELETED")
        self._wake(ClusterKey(metadata["namespace"], metadata["name"]))

    async def _object_event(self, event: Any, **_: Any) -> None:
        metadata: Mapping[str, Any] = event["object"]["metadata"]
        cluster = (metadata.get("labels") or {}).get(CLUSTER_LABEL)
        if cluster:
            self._wake(ClusterKey(metadata["namespace"], cluster))

    def _wake(self, key: ClusterKey) -> None:
        waker = self._wakers.get(key)
        if waker is not None:
            waker.set()


async def _pause(seconds: float, waker: asyncio.Event, stopped: kopf.DaemonStopped) -> None:
    """So long, or until the cluster is woken or ends."""

    async def end() -> None:
        await stopped.wait()

    waits = {asyncio.ensure_future(waker.wait()), asyncio.ensure_future(end())}
    _, pending = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for wait in pending:
        wait.cancel()


def configure(settings: kopf.OperatorSettings, namespaces: tuple[str, ...]) -> None:
    """kopf's own settings."""
    settings.persistence.finalizer = FINALIZER
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=GROUP)
    # The operator tells what it does in events of its own.
    settings.posting.enabled = False
    # Two operators do no harm: every step names what it was planned for.
    settings.peering.standalone = True
    # Without rights to the whole cluster there are neither namespaces nor definitions to look at.
    settings.scanning.disabled = bool(namespaces)
    settings.watching.server_timeout = _WATCH_S
    settings.watching.client_timeout = _WATCH_S + 30
    settings.watching.connect_timeout = _CALL_S
    settings.watching.label_selectors["v1", "pods"] = CLUSTER_LABEL
    settings.watching.label_selectors["apps", "statefulsets"] = CLUSTER_LABEL
    settings.networking.request_timeout = _CALL_S
    settings.networking.connect_timeout = _CALL_S
    settings.networking.enforce_retry_after = True
    settings.posting.reporting_component = MANAGER
