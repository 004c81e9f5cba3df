"""The nodes of Kubernetes, as far as members depend on them; shared by all clusters."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable, Mapping

import msgspec

from raft_operator.kube import NODES, Kube, KubeError, Object
from raft_operator.times import time_of

_KEEP = datetime.timedelta(seconds=10)


class NodeState(msgspec.Struct, frozen=True):
    """Whether the node's kubelet reports, and since when that is so."""

    is_ready: bool
    since: datetime.datetime | None


class Nodes:
    """Raises KubeError when they have to be read and can't be."""

    def __init__(self, kube: Kube, clock: Callable[[], datetime.datetime]) -> None:
        self._kube = kube
        self._clock = clock
        self._read_at: datetime.datetime | None = None
        self._states: Mapping[str, NodeState] = {}
        self._reading = asyncio.Lock()
        self._ended = 0  # how many reads have come to their end
        self._failure: KubeError | None = None  # of the last one

    async def refresh(self) -> None:
        """Read them, unless that was done a moment ago. Whoever comes while they are read waits,
        and shares what comes of it."""
        ended_before = self._ended
        async with self._reading:
            if self._ended == ended_before:
                await self._read()
            elif self._failure is not None:
                raise KubeError(str(self._failure), self._failure.status) from self._failure

    async def _read(self) -> None:
        now = self._clock()
        if self._read_at is not None and now - _KEEP < self._read_at <= now:
            return
        try:
            found = await self._kube.list(NODES)
        except KubeError as failure:
            self._ended, self._failure = self._ended + 1, failure
            raise
        self._ended, self._failure = self._ended + 1, None
        self._states = {node["metadata"]["name"]: _state(node) for node in found}
        self._read_at = now

    def now(self) -> datetime.datetime:
        return self._clock()

    def is_lost(self, name: str, after_s: int, *, is_there: bool) -> bool:
        """Whether the node has been silent for `after_s` (0: never), or is gone altogether and not
        `is_there`, where a pod is still said to be on it."""
        if not name or not after_s:
            return False
        state = self._states.get(name)
        if state is None:
            return not is_there
        if state.is_ready or state.since is None:
            return False
        return self._clock() - state.since >= datetime.timedelta(seconds=after_s)


def _state(node: Object) -> NodeState:
    for condition in node.get("status", {}).get("conditions") or []:
        if condition["type"] == "Ready":
            since = time_of(condition.get("lastTransitionTime"))
            return NodeState(condition["status"] == "True", since)
    # One that has just come and has said nothing yet.
    return NodeState(True, None)
