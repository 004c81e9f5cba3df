"""Events: what people see with `kubectl describe`."""

from __future__ import annotations

import datetime
import logging
import secrets

from raft_operator.kube import EVENTS, Kube, KubeError, Object
from raft_operator.names import GROUP, KIND, MANAGER, VERSION
from raft_operator.times import text_of

log = logging.getLogger("raft.operator")

_MAX_MESSAGE = 1024


async def tell(
    kube: Kube,
    resource: Object,
    reason: str,
    message: str,
    now: datetime.datetime,
    *,
    is_bad: bool = False,
) -> None:
    """Note an event on the cluster. What can't be told is logged and holds nothing up."""
    metadata = resource["metadata"]
    namespace, name = metadata["namespace"], metadata["name"]
    event: Object = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{name}.{secrets.token_hex(8)}", "namespace": namespace},
        "involvedObject": {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KIND,
            "name": name,
            "namespace": namespace,
            "uid": metadata["uid"],
        },
        "type": "Warning" if is_bad else "Normal",
        "reason": reason,
        "message": message[:_MAX_MESSAGE],
        "source": {"component": MANAGER},
        "firstTimestamp": text_of(now),
        "lastTimestamp": text_of(now),
        "count": 1,
    }
    try:
        await kube.create(EVENTS, namespace, event)
    except KubeError as error:
        log.warning("%s/%s: an event can't be noted: %s", namespace, name, error)
