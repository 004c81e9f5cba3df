"""Notices that the operator does not hear any more what happens to its clusters.

A watch can die without a word: the connection stands, and nothing comes. So the clusters are
listed now and then as well, and what the list has and no event has told for a while means that kopf
is deaf. An API server that does not answer is another matter, which no restart of the operator
mends.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable, Mapping
from typing import Any

from raft_operator.kube import CLUSTERS, Kube, KubeError

_LOOK_S = 30.0
_PATIENCE = datetime.timedelta(seconds=90)


class Watchdog:
    """`namespaces`: those that are watched, none for all."""

    def __init__(self, namespaces: tuple[str, ...], clock: Callable[[], datetime.datetime]) -> None:
        self._namespaces = namespaces or ("",)
        self._clock = clock
        self._seen: dict[str, int] = {}
        self._behind: dict[str, datetime.datetime] = {}
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
        now = self._clock()
        late = sorted(
            self._names[uid] for uid, since in self._behind.items() if now - since >= _PATIENCE
        )
        return f"no event has told of changes of {', '.join(late)}" if late else ""

    async def run(self, kube: Kube) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            await self.look(kube)

    async def look(self, kube: Kube) -> None:
        """Compare what was heard with what there is."""
        behind: dict[str, datetime.datetime] = {}
        names: dict[str, str] = {}
        try:
            for namespace in self._namespaces:
                for item in await kube.list(CLUSTERS, namespace):
                    metadata = item["metadata"]
                    uid = metadata["uid"]
                    if self._seen.get(uid, -1) < metadata.get("generation", 0):
                        behind[uid] = self._behind.get(uid, self._clock())
                        names[uid] = f"{metadata['namespace']}/{metadata['name']}"
        except KubeError:
            return
        self._behind, self._names = behind, names
