"""The end of a whole cluster: nobody leaves, since nobody is left to need it."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Mapping
from typing import Any

from raft_operator.kube import CLAIMS, PODS, STATEFUL_SETS, Kube
from raft_operator.names import VOLUME, ClusterKey
from raft_operator.times import time_of

log = logging.getLogger("raft.operator")

# A pod on a node that is gone never ends, and its volume goes once it does.
_WAIT = datetime.timedelta(seconds=90)


async def delete_cluster(kube: Kube, key: ClusterKey, resource: Mapping[str, Any]) -> int:
    """Take away what does not go by itself with the RaftCluster that owns it. How many pods are
    still to end before it can go on; 0 when all is done. Raises KubeError."""
    storage = (resource.get("spec") or {}).get("storage") or {}
    if storage.get("whenDeleted", "Retain") != "Delete":
        return 0
    found = await kube.get(STATEFUL_SETS, key.namespace, key.stateful_set)
    if found is not None:
        uid = found["metadata"]["uid"]
        log.info("%s: ends its pods, since it is deleted", key)
        await kube.delete(STATEFUL_SETS, key.namespace, key.stateful_set, uid)
    selector = key.selector_text()
    pods = [
        pod
        for pod in await kube.list(PODS, key.namespace, selector)
        if key.ordinal(pod["metadata"]["name"]) is not None
    ]
    now = kube.now()
    began = time_of(resource["metadata"].get("deletionTimestamp")) or now
    if pods and now - began < _WAIT:
        return len(pods)
    for claim in await kube.list(CLAIMS, key.namespace, selector):
        name = claim["metadata"]["name"]
        if key.ordinal(name.removeprefix(f"{VOLUME}-")) is not None:
            log.info("%s: deletes the volume %s, since it is deleted", key, name)
            await kube.delete(CLAIMS, key.namespace, name, claim["metadata"]["uid"])
    return 0
