"""Notices that the operator does not hear any more what happens to its clusters.

A watch can die without a word: the connection stands, and nothing comes. So the clusters are
listed now and then as well, and what the list has and no event has told for a while means that kopf
is deaf. An API server that does not answer is another matter, which no restart of the operator
mends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from raft_operator.kube import CLUSTERS, Kube, KubeError

_LOOK_S = 30.0
_PATIENCE_S = 90.0


class Watchdog:
    """`namespaces`: those that are watched, none for all. `monotonic_s` is a clock."""

    def __init__(self, namespaces: tuple[str, ...], monotonic_s: Callable[[], float]) -> None:
        self._namespaces = namespaces or ("",)
        self._monotonic_s = monotonic_s
        self._seen: dict[str, int] = {}
        self._behind: dict[str, float] = {}
        self._names: dict[str, str] = {}

    def saw(self, metadata: Mapping[str, Any], *, is_gone: bool = False) -> None:
        """An event has told of a cluster."""
        uid = metadata["uid"]
        if is_gone:
            self._seen.pop(uid, None)
            self._behind.pop(uid, None)
        else:
            self._seen[uid] = metadata.get("generation", 0)

    def problem(self) -> str:
        """What was not heard of, in words; "" when all is well."""
        now_s = self._monotonic_s()
        late = sorted(
            self._names[uid] for uid, since in self._behind.items() if now_s - since >= _PATIENCE_S
        )
        return f"no event has told of changes of {', '.join(late)}" if late else ""

    async def run(self, kube: Kube) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            await self.look(kube)

    async def look(self, kube: Kube) -> None:
        """Compare what was heard with what there is."""
        behind: dict[str, float] = {}
        names: dict[str, str] = {}
        try:
            for namespace in self._namespaces:
                for item in await kube.list(CLUSTERS, namespace):
                    metadata = item["metadata"]
                    uid = metadata["uid"]
                    if self._seen.get(uid, -1) < metadata.get("generation", 0):
                        behind[uid] = self._behind.get(uid, self._monotonic_s())
                        names[uid] = f"{metadata['namespace']}/{metadata['name']}"
        except KubeError:
            return
        self._behind, self._names = behind, names
