"""The calls to the API server that the operator makes itself; kopf makes those that watch.

`Kube` is all that the rest knows of it, so that tests can put a cluster of their own behind it.
"""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urlencode

import msgspec

from raft_operator.names import GROUP, MANAGER, PLURAL, VERSION
from raft_operator.times import ServerClock

Object = dict[str, Any]

_TIMEOUT_S = 15.0
_MERGE = "application/merge-patch+json"
_NOT_FOUND, _CONFLICT = 404, 409


class Kind(msgspec.Struct, frozen=True):
    """Where objects of one kind are found."""

    api_version: str
    plural: str
    is_namespaced: bool = True

    @property
    def group(self) -> str:
        return self.api_version.rpartition("/")[0]


CLUSTERS = Kind(f"{GROUP}/{VERSION}", PLURAL)
PODS = Kind("v1", "pods")
CLAIMS = Kind("v1", "persistentvolumeclaims")
CONFIG_MAPS = Kind("v1", "configmaps")
SERVICES = Kind("v1", "services")
SECRETS = Kind("v1", "secrets")
EVENTS = Kind("v1", "events")
STATEFUL_SETS = Kind("apps/v1", "statefulsets")
NODES = Kind("v1", "nodes", is_namespaced=False)
BUDGETS = Kind("policy/v1", "poddisruptionbudgets")

_BY_NAME = {
    "ConfigMap": CONFIG_MAPS,
    "Service": SERVICES,
    "Secret": SECRETS,
    "StatefulSet": STATEFUL_SETS,
    "PodDisruptionBudget": BUDGETS,
}


def kind_of(found: Mapping[str, Any]) -> Kind:
    """Of an object that the operator writes."""
    known = _BY_NAME[found["kind"]]
    return Kind(found["apiVersion"], known.plural, known.is_namespaced)


def in_place_of(found: Object, wanted: Object) -> Object:
    """What replaces `found`: all of `wanted`, under the version that was read, with the labels and
    annotations that others have put there."""
    metadata, before = wanted["metadata"], found["metadata"]
    merged = {
        field: {**(before.get(field) or {}), **metadata[field]}
        for field in ("labels", "annotations")
    }
    version = {"resourceVersion": before["resourceVersion"]}
    return {**wanted, "metadata": {**metadata, **merged, **version}}


class KubeError(Exception):
    """The API server did not do what was asked; `status` is 0 when it did not answer."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class Conflict(KubeError):  # noqa: N818
    """Somebody has changed the object since it was read, or it is another one by now."""


class Kube(Protocol):
    """All but `now` raise KubeError."""

    def now(self) -> datetime.datetime:
        """The time by the API server's clock, which the times in objects are compared with."""

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """None when there is none."""

    async def list(self, kind: Kind, namespace: str = "", selector: str = "") -> list[Object]: ...

    async def put(self, wanted: Object, found: Object | None) -> Object:
        """Make the object, or have it be as `wanted` in place of `found`. Labels and annotations of
        others stay. Raises Conflict when it is there already, or is not `found` any more."""

    async def patch(
        self, kind: Kind, namespace: str, name: str, changes: Object, subresource: str = ""
    ) -> Object:
        """Merge `changes` (RFC 7386); a resource version or uid in them has to be the object's,
        else Conflict is raised."""

    async def create(self, kind: Kind, namespace: str, wanted: Object) -> Object: ...

    async def delete(
        self, kind: Kind, namespace: str, name: str, uid: str = "", grace_s: int | None = None
    ) -> None:
        """Delete the object; nothing happens when it is gone. Raises Conflict when it has another
        uid. `grace_s`: for how long a pod may take, 0 not to wait for its node."""

    async def has_version(self, api_version: str) -> bool:
        """Whether the API server knows this version of a group."""


class ApiServer:
    """A Kube over HTTP, by the credentials of `connect`."""

    def __init__(self, api: Any) -> None:
        self._api = api
        self._versions: set[str] = set()
        self._clock = ServerClock()

    async def close(self) -> None:
        await self._api.close()

    def now(self) -> datetime.datetime:
        return self._clock.now()

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        try:
            return await self._call("GET", _path(kind, namespace, name))
        except KubeError as error:
            if error.status == _NOT_FOUND:
                return None
            raise

    async def list(self, kind: Kind, namespace: str = "", selector: str = "") -> list[Object]:
        query = {"labelSelector": selector} if selector else {}
        found = await self._call("GET", _path(kind, namespace), query)
        items: list[Object] = found.get("items") or []
        return items

    async def put(self, wanted: Object, found: Object | None) -> Object:
        kind, metadata = kind_of(wanted), wanted["metadata"]
        if found is None:
            return await self.create(kind, metadata["namespace"], wanted)
        path = _path(kind, metadata["namespace"], metadata["name"])
        query = {"fieldManager": MANAGER}
        return await self._call("PUT", path, query, in_place_of(found, wanted))

    async def patch(
        self, kind: Kind, namespace: str, name: str, changes: Object, subresource: str = ""
    ) -> Object:
        path = _path(kind, namespace, name) + (f"/{subresource}" if subresource else "")
        return await self._call("PATCH", path, {"fieldManager": MANAGER}, changes, _MERGE)

    async def create(self, kind: Kind, namespace: str, wanted: Object) -> Object:
        query = {"fieldManager": MANAGER}
        return await self._call("POST", _path(kind, namespace), query, wanted)

    async def delete(
        self, kind: Kind, namespace: str, name: str, uid: str = "", grace_s: int | None = None
    ) -> None:
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        try:
            await self._call("DELETE", _path(kind, namespace, name), {}, options)
        except KubeError as error:
            if error.status != _NOT_FOUND:
                raise

    async def has_version(self, api_version: str) -> bool:
        if api_version not in self._versions:
            found = await self._call("GET", "/apis/" + api_version.partition("/")[0])
            # What is not there is asked for again: an upgrade of Kubernetes may bring it.
            self._versions |= {version["groupVersion"] for version in found.get("versions", [])}
        return api_version in self._versions

    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        import aiohttp  # noqa: PLC0415  # comes with the client

        headers = {"Accept": "application/json", "Content-Type": content_type}
        try:
            serialized = await self._api.param_serialize(
                method, path, header_params=headers, body=body, auth_settings=["BearerToken"]
            )
            method, url, headers, body, _ = serialized
            if query:
                url += "?" + urlencode(query)
            answer = await self._api.call_api(
                method, url, headers, body, _request_timeout=_TIMEOUT_S
            )
            content = await answer.read()
            self._clock.hear(answer.headers.get("Date"))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            why = str(error) or type(error).__name__
            raise KubeError(f"{method} {path}: the API server does not answer: {why}") from error
        if answer.status >= 300:
            raise _failure(f"{method} {path}", answer.status, content)
        found: Object = json.loads(content)
        return found


def _failure(what: str, status: int, content: bytes) -> KubeError:
    text = content[:500].decode(errors="replace")
    with contextlib.suppress(ValueError, TypeError, KeyError):
        text = json.loads(content)["message"]
    kind = Conflict if status == _CONFLICT else KubeError
    return kind(f"{what}: {status}: {text}", status)


def _path(kind: Kind, namespace: str, name: str = "") -> str:
    parts = ["/apis" if "/" in kind.api_version else "/api", kind.api_version]
    if kind.is_namespaced and namespace:
        parts += ["namespaces", namespace]
    parts.append(kind.plural)
    if name:
        parts.append(name)
    return "/".join(parts)


async def connect() -> ApiServer:
    """To the cluster that the operator runs in, else to that of KUBECONFIG or ~/.kube/config.
    Raises KubeError."""
    from kubernetes.aio import client, config  # noqa: PLC0415
    from kubernetes.aio.config import ConfigException  # noqa: PLC0415

    configuration = client.Configuration()
    # A call that failed is looked at again by the whole pass, with what has come about meanwhile.
    configuration.retries = None
    try:
        config.load_incluster_config(  # type: ignore[no-untyped-call]
            client_configuration=configuration
        )
    except ConfigException:
        try:
            await config.load_kube_config(  # type: ignore[no-untyped-call]
                client_configuration=configuration
            )
        except ConfigException as error:
            raise KubeError(
                f"there is no Kubernetes to talk to: {error}; set KUBECONFIG, or run in a pod with "
                "a service account"
            ) from error
    return ApiServer(client.ApiClient(configuration))
