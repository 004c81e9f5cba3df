"""The objects of a cluster as they should be: plain dicts, from the spec and nothing else.

They are written whole; only labels and annotations of others stay.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import msgspec

from raft_operator.kube import Object
from raft_operator.names import (
    APPLIED_ANNOTATION,
    GROUP,
    KIND,
    MANAGER,
    ROLE_LABEL,
    TEMPLATE_ANNOTATION,
    VERSION,
    VOLUME,
    ClusterKey,
)
from raft_operator.pods import (
    BOOTSTRAP_KEY,
    CLUSTER_ID_KEY,
    config_file,
    pod_template,
)
from raft_operator.spec import MAX_REPLICAS, Spec


class Owner(msgspec.Struct, frozen=True):
    """The RaftCluster that the objects belong to, and go with."""

    key: ClusterKey
    uid: str

    def reference(self) -> Object:
        return {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KIND,
            "name": self.key.name,
            "uid": self.uid,
            "controller": True,
        }


def digest(value: object) -> str:
    """A short hash of anything that is JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def config_map(owner: Owner, spec: Spec, *, bootstrap: bool, cluster_id: str) -> Object:
    """What all agents read. `bootstrap`: a start with an empty volume founds the cluster, which is
    so until there is one; `cluster_id` is what the operator remembers it by, "" before."""
    key = owner.key
    text = raft_toml(key, spec)
    data = {config_file(key.pod(ordinal)): text for ordinal in range(MAX_REPLICAS)}
    if bootstrap:
        # In a file that only the seed reads: whatever a kubelet has not heard yet, no other pod can
        # found a second cluster.
        data[config_file(key.pod(0))] = raft_toml(key, spec, bootstrap=True)
    data |= {BOOTSTRAP_KEY: "true" if bootstrap else "false", CLUSTER_ID_KEY: cluster_id}
    return _object(owner, "v1", "ConfigMap", key.config_map, {"data": data})


def raft_toml(key: ClusterKey, spec: Spec, *, bootstrap: bool = False) -> str:
    """The configuration of a member, but for what its pod says."""
    ports, timing, ebpf = spec.ports, spec.timing, spec.ebpf
    tables: list[tuple[str, Mapping[str, object]]] = [
        (
            "[server]",
            {
                "listen_addr": f"0.0.0.0:{ports.raft}",
                "data_dir": "/var/lib/raft/node",
                "log_level": spec.log_level,
            },
        ),
        (
            "[timing]",
            {
                "heartbeat_interval_ms": timing.heartbeat_interval_ms,
                "election_timeout_min_ms": timing.election_timeout_min_ms,
                "election_timeout_max_ms": timing.election_timeout_max_ms,
            },
        ),
        (
            "[ebpf]",
            {
                "enabled": ebpf.enabled,
                "interface": spec.network.interface,
                "fresh_ms": ebpf.fresh_ms,
                "firewall": ebpf.firewall,
                "firewall_allow": list(ebpf.firewall_allow),
            },
        ),
        ("[cluster]", {"name": key.name, **({"bootstrap": True} if bootstrap else {})}),
        (
            "[tls]",
            {"ca": "/etc/raft/tls/ca.pem", "clear_headers": spec.tls.clear_headers},
        ),
    ]
    for export in ebpf.exports:
        fields = msgspec.structs.asdict(export)
        tables.append(("[[ebpf.export]]", fields))
    return "\n".join(
        "".join([f"{title}\n", *(f"{name} = {_toml(value)}\n" for name, value in fields.items())])
        for title, fields in tables
    )


def _toml(value: object) -> str:
    # Strings, numbers, booleans and lists of strings are written alike in JSON and TOML, but that
    # TOML takes no escaped DEL and wants surrogates joined.
    return json.dumps(value, ensure_ascii=False)


def stateful_set(owner: Owner, spec: Spec, replicas: int) -> Object:
    key = owner.key
    template = hashed_template(key, spec)
    claim: Object = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": spec.storage.size}},
    }
    if spec.storage.class_name is not None:
        claim["storageClassName"] = spec.storage.class_name
    body = {
        "replicas": replicas,
        "serviceName": key.peers_service,
        # Members are independent of each other, and a dead one must not hold up the others.
        "podManagementPolicy": "Parallel",
        # The operator has an order of its own, with the leader last.
        "updateStrategy": {"type": "OnDelete"},
        "revisionHistoryLimit": 2,
        "selector": {"matchLabels": key.selector()},
        "template": template,
        "volumeClaimTemplates": [
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": VOLUME, "labels": key.selector()},
                "spec": claim,
            }
        ],
    }
    return _object(owner, "apps/v1", "StatefulSet", key.stateful_set, {"spec": body})


def hashed_template(key: ClusterKey, spec: Spec) -> Object:
    """The pod template with its own hash, by which outdated pods are known."""
    template = pod_template(key, spec, digest(raft_toml(key, spec)))
    template["metadata"]["annotations"][TEMPLATE_ANNOTATION] = digest(template)
    return template


def template_hash(key: ClusterKey, spec: Spec) -> str:
    found: str = hashed_template(key, spec)["metadata"]["annotations"][TEMPLATE_ANNOTATION]
    return found


def services(owner: Owner, spec: Spec) -> list[Object]:
    """One that names every pod, and one for clients: any member that is ready takes them."""
    key = owner.key
    raft = {"name": "raft", "port": spec.ports.raft, "targetPort": "raft", "protocol": "TCP"}
    http = {"name": "http", "port": spec.ports.http, "targetPort": "http", "protocol": "TCP"}
    peers = {
        "clusterIP": "None",
        # A pod has to be found before it is ready: it is not before it is a member.
        "publishNotReadyAddresses": True,
        "selector": key.selector(),
        # What listens on the pod's loopback alone can't be scraped.
        "ports": [raft] if spec.network.http_on_loopback else [raft, http],
    }
    clients = {"type": "ClusterIP", "selector": key.selector(), "ports": [raft]}
    return [
        _object(owner, "v1", "Service", key.peers_service, {"spec": peers}),
        _object(owner, "v1", "Service", key.client_service, {"spec": clients}),
    ]


def disruption_budget(owner: Owner, voters: int, api_version: str) -> Object:
    """One voter may be drained at a time, and none where that would take the quorum.
    `api_version`: "policy/v1", or "policy/v1beta1" before Kubernetes 1.21."""
    key = owner.key
    spared = 1 if voters >= 3 else 0
    body = {
        "minAvailable": voters - spared,
        "selector": {"matchLabels": {**key.selector(), ROLE_LABEL: "voter"}},
    }
    return _object(owner, api_version, "PodDisruptionBudget", key.budget, {"spec": body})


def secret(owner: Owner, name: str, data: Mapping[str, bytes]) -> Object:
    encoded = {file: base64.b64encode(content).decode() for file, content in sorted(data.items())}
    return _object(owner, "v1", "Secret", name, {"type": "Opaque", "data": encoded})


def secret_data(found: Mapping[str, Any] | None) -> dict[str, bytes]:
    """The files in a Secret; none where there is no Secret."""
    data = (found or {}).get("data") or {}
    return {name: base64.b64decode(text) for name, text in data.items()}


def is_as_applied(found: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> bool:
    """Whether the object is there, and was last written as `wanted` says."""
    if found is None:
        return False
    annotations = found["metadata"].get("annotations") or {}
    return bool(
        annotations.get(APPLIED_ANNOTATION) == wanted["metadata"]["annotations"][APPLIED_ANNOTATION]
    )


def hosts_of(key: ClusterKey, member: str) -> tuple[str, ...]:
    """The names under which clients may dial a member; addresses change, so they are none."""
    services = (key.client_service, f"{member}.{key.peers_service}")
    suffixes = ("", f".{key.namespace}", f".{key.namespace}.svc")
    return tuple(service + suffix for service in services for suffix in suffixes)


def _object(owner: Owner, api_version: str, kind: str, name: str, body: Object) -> Object:
    found: Object = {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": owner.key.namespace,
            "labels": {**owner.key.labels(), "app.kubernetes.io/managed-by": MANAGER},
            "ownerReferences": [owner.reference()],
        },
        **body,
    }
    found["metadata"]["annotations"] = {APPLIED_ANNOTATION: digest(found)}
    return found
