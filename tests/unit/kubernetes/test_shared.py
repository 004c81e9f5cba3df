"""What the clusters of one operator share: nodes, what the API server knows, and who wakes whom."""

from __future__ import annotations

import asyncio
import datetime
import json
from typing import Any, cast

import kopf
import pytest

from raft_operator import engine, kube
from raft_operator.handlers import Operator
from raft_operator.kube import CLUSTERS, NODES, ApiServer, Kind, Kube, KubeError, Object
from raft_operator.nodes import Nodes

_NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
_AT_ONCE = 50
_WITHIN_S = 30.0  # no measure of speed


class SlowNodes:
    """An API server that answers the first of all who ask for nodes once `answer` is set."""

    def __init__(self, failure: KubeError | None = None) -> None:
        self.asked = 0
        self.answer = asyncio.Event()
        self._failure = failure

    async def list(self, kind: Kind, _namespace: str = "", _selector: str = "") -> list[Object]:
        assert kind == NODES
        self.asked += 1
        await self.answer.wait()
        if self._failure is not None:
            raise self._failure
        return [{"metadata": {"name": "n1"}}]


async def all_at_once(server: SlowNodes, nodes: Nodes) -> list[BaseException | None]:
    """What becomes of many who want the nodes before the first of them has them."""
    asking = [asyncio.create_task(nodes.refresh()) for _ in range(_AT_ONCE)]
    while not server.asked:
        await asyncio.sleep(0)
    server.answer.set()
    return await asyncio.gather(*asking, return_exceptions=True)


def test_clusters_that_start_at_once_read_the_nodes_once() -> None:
    async def run() -> None:
        server = SlowNodes()
        nodes = Nodes(cast("Kube", server), lambda: _NOW)
        assert await all_at_once(server, nodes) == [None] * _AT_ONCE
        assert server.asked == 1
        assert nodes.is_lost("n2", 1, is_there=False)
        assert not nodes.is_lost("n1", 1, is_there=False)

    asyncio.run(run())


def test_clusters_that_wait_for_the_same_nodes_share_its_failure_and_the_next_reads_anew() -> None:
    """One after the other they would wait for a dead API server for minutes."""

    async def run() -> None:
        server = SlowNodes(KubeError("it is gone", 503))
        nodes = Nodes(cast("Kube", server), lambda: _NOW)
        found = await all_at_once(server, nodes)
        assert [(str(error), cast("KubeError", error).status) for error in found] == [
            ("it is gone", 503)
        ] * _AT_ONCE
        assert server.asked == 1
        with pytest.raises(KubeError):
            await nodes.refresh()
        assert server.asked == 2

    asyncio.run(run())


def test_nodes_whose_reader_is_cut_off_are_read_by_who_waits() -> None:
    async def run() -> None:
        server = SlowNodes()
        nodes = Nodes(cast("Kube", server), lambda: _NOW)
        first, second = (asyncio.create_task(nodes.refresh()) for _ in range(2))
        while not server.asked:
            await asyncio.sleep(0)
        first.cancel()
        server.answer.set()
        await second
        assert server.asked == 2
        assert first.cancelled()

    asyncio.run(run())


class Answers:
    """In place of the client of Kubernetes: what /apis/policy says, one answer after the other."""

    def __init__(self, *known: list[str]) -> None:
        self._known = iter(known)
        self.headers: dict[str, str] = {}
        self.status = 200

    async def param_serialize(self, method: str, path: str, **_: Any) -> tuple[Any, ...]:
        return method, path, {}, None, None

    async def call_api(self, *_: Any, **__: Any) -> Answers:
        return self

    async def read(self) -> bytes:
        versions = [{"groupVersion": version} for version in next(self._known)]
        return json.dumps({"versions": versions}).encode()


def test_a_version_that_the_api_server_learns_later_is_seen_then_and_asked_for_no_more() -> None:
    """As when Kubernetes is upgraded under the operator."""

    async def run() -> None:
        old, new = ["policy/v1beta1"], ["policy/v1beta1", "policy/v1"]
        server = ApiServer(Answers(old, new))
        version = kube.BUDGETS.api_version
        assert [await server.has_version(version) for _ in range(3)] == [False, True, True]

    asyncio.run(run())


class Clusters:
    """An API server that has no cluster, and counts who looks for one."""

    def __init__(self) -> None:
        self.looks = 0
        self.looked = asyncio.Condition()

    def now(self) -> datetime.datetime:
        return _NOW

    async def get(self, kind: Kind, _namespace: str, _name: str) -> Object | None:
        assert kind == CLUSTERS
        async with self.looked:
            self.looks += 1
            self.looked.notify_all()
        return None

    async def list(self, _kind: Kind, _namespace: str = "", _selector: str = "") -> list[Object]:
        return []

    async def until_looks(self, count: int) -> None:
        async with asyncio.timeout(_WITHIN_S), self.looked:
            await self.looked.wait_for(lambda: self.looks >= count)


class Stopped:
    """kopf's word that a daemon is to end, which never comes."""

    def __bool__(self) -> bool:
        return False

    async def wait(self) -> None:
        await asyncio.Event().wait()


def test_a_cluster_made_anew_is_woken_also_once_the_daemon_of_the_former_one_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """kopf gives a daemon up that does not end in time, and it ends whenever it does."""
    monkeypatch.setattr(engine, "IDLE_S", 10 * _WITHIN_S)  # nothing but an event wakes it

    async def run() -> None:
        server = Clusters()

        async def connect() -> Kube:
            return cast("Kube", server)

        operator = Operator(("space",), connect_kube=connect)
        await operator._start(kopf.OperatorSettings())
        daemon = {"namespace": "space", "name": "kv", "stopped": Stopped()}
        former = asyncio.create_task(operator._run(**daemon))  # type: ignore[arg-type]
        await server.until_looks(1)
        present = asyncio.create_task(operator._run(**daemon))  # type: ignore[arg-type]
        await server.until_looks(2)
        former.cancel()
        await asyncio.gather(former, return_exceptions=True)
        metadata = {"namespace": "space", "name": "kv", "uid": "2", "generation": 1}
        await operator._cluster_event({"type": "MODIFIED", "object": {"metadata": metadata}})
        await server.until_looks(3)
        present.cancel()
        await asyncio.gather(present, return_exceptions=True)
        assert operator._wakers == {}
        await operator._end()

    asyncio.run(run())
