"""The pod that one member runs in; all pods of a cluster are made from this one template."""

from __future__ import annotations

from raft_operator.kube import Object
from raft_operator.names import VOLUME, ClusterKey
from raft_operator.spec import Spec

CONTAINER = "agent"
# Nobody's id on usual systems: without the kernel part the agent needs no right at all.
_UID = 10_555

_CONFIG = "/etc/raft/config"
_CERTIFICATES = "/etc/raft/tls"
_DATA = "/var/lib/raft"
_SOCKETS = "/run/raft"
_BPF = "/sys/fs/bpf"

BOOTSTRAP_KEY = "bootstrap"
CLUSTER_ID_KEY = "cluster-id"
AUTHORITIES_FILE = "ca.pem"

# Written out by the kubelet, in variables and in the command line.
_OWN_NAME = "$(RAFT_SERVER_NODE_ID)"

# A leader hands over on SIGTERM, and writes what it has; a disk that hangs must not hold a node for
# ever.
_GRACE_S = 30


def config_file(member: str) -> str:
    return f"{member}.toml"


def certificate_file(member: str) -> str:
    return f"{member}.pem"


def key_file(member: str) -> str:
    return f"{member}-key.pem"


def pod_template(key: ClusterKey, spec: Spec, config_hash: str) -> Object:
    """`spec.template` of the StatefulSet. The annotation of its own hash is not in it yet."""
    return {
        "metadata": {
            "labels": key.labels(),
            "annotations": {
                **spec.pod_annotations,
                "raft-ebpf.dev/config": config_hash,
                "kubectl.kubernetes.io/default-container": CONTAINER,
            },
        },
        "spec": _pod_spec(key, spec),
    }


def _pod_spec(key: ClusterKey, spec: Spec) -> Object:
    placement = spec.placement
    found: Object = {
        "hostNetwork": spec.network.host_network,
        "dnsPolicy": "ClusterFirstWithHostNet" if spec.network.host_network else "ClusterFirst",
        # A service called raft would give pods variables that look like settings of the agent.
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": _GRACE_S,
        "securityContext": _pod_security(spec),
        "containers": [_container(key, spec)],
        "volumes": _volumes(key, spec),
        "affinity": _affinity(key, spec),
        "nodeSelector": placement.node_selector,
        "tolerations": list(placement.tolerations),
        "topologySpreadConstraints": [
            {"labelSelector": {"matchLabels": key.selector()}, **constraint}
            for constraint in placement.topology_spread_constraints
        ],
        "imagePullSecrets": [{"name": secret.name} for secret in spec.image_pull_secrets],
        "priorityClassName": placement.priority_class_name,
    }
    return {name: value for name, value in found.items() if value not in ({}, [], "")}


def _pod_security(spec: Spec) -> Object:
    # The kernel part can be turned on and off: uid 0 without capabilities has no more right to the
    # files of another user than that one has to its own, so the group has to do.
    group = {"fsGroup": _UID, "fsGroupChangePolicy": "Always"}
    if spec.ebpf.enabled:
        # Added capabilities take effect for uid 0 alone (kubernetes#56374).
        return {"runAsUser": 0, "runAsGroup": _UID, **group}
    return {"runAsUser": _UID, "runAsGroup": _UID, "runAsNonRoot": True, **group}


def _container(key: ClusterKey, spec: Spec) -> Object:
    return {
        "name": CONTAINER,
        "image": spec.full_image,
        "imagePullPolicy": spec.image_pull_policy,
        "command": ["raft-agent"],
        "args": ["--config", f"{_CONFIG}/{config_file(_OWN_NAME)}"],
        "env": _environment(key, spec),
        "ports": [
            _port("raft", spec.ports.raft, spec),
            _port("http", spec.ports.http, spec),
        ],
        "resources": spec.resources,
        "securityContext": _security(spec),
        "volumeMounts": _mounts(spec),
        # What it says at its end is shown where people look first.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "lifecycle": {"preStop": {"exec": {"command": _HAND_OVER}}},
        **_probes(spec),
    }


# SIGTERM makes a leader hand over, too; this is done while the pod still counts as an endpoint's.
# A follower refuses, which is fine.
_HAND_OVER = ["/bin/sh", "-c", "raftctl --timeout 5 leader transfer || true"]


def _port(name: str, number: int, spec: Spec) -> Object:
    found: Object = {"name": name, "containerPort": number, "protocol": "TCP"}
    # The scheduler then keeps two clusters with the same port from one node.
    return {**found, "hostPort": number} if spec.network.host_network else found


def _environment(key: ClusterKey, spec: Spec) -> list[Object]:
    """All that differs from pod to pod; the rest stands in the file that they share."""
    certificates = f"{_CERTIFICATES}/"
    host = "127.0.0.1" if spec.network.http_on_loopback else "$(POD_IP)"
    variables: list[Object] = [
        _from_pod("RAFT_SERVER_NODE_ID", "metadata.name"),
        _from_pod("POD_IP", "status.podIP"),
        _set("RAFT_SERVER_ADVERTISE_ADDR", f"$(POD_IP):{spec.ports.raft}"),
        _set("RAFT_SERVER_HTTP_ADDR", f"{host}:{spec.ports.http}"),
        _set("RAFT_SERVER_IPC_SOCKET", f"{_SOCKETS}/{_OWN_NAME}.sock"),
        _set("RAFT_TLS_CERT", certificates + certificate_file(_OWN_NAME)),
        _set("RAFT_TLS_KEY", certificates + key_file(_OWN_NAME)),
        _set("RAFTCTL_NODE", _OWN_NAME),
    ]
    if spec.ebpf.enabled:
        # One level, and no dot: such names are reserved on a BPF file system.
        variables.append(_set("RAFT_EBPF_PIN_DIR", f"{_BPF}/raft_{key.namespace}_{_OWN_NAME}"))
    return variables


def _set(name: str, value: str) -> Object:
    return {"name": name, "value": value}


def _from_pod(name: str, path: str) -> Object:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _security(spec: Spec) -> Object:
    capabilities: Object = {"drop": ["ALL"]}
    if spec.ebpf.enabled:
        capabilities["add"] = ["BPF", "NET_ADMIN", "PERFMON"]
        if spec.ebpf.sys_resource:
            capabilities["add"].append("SYS_RESOURCE")
    return {
        "capabilities": capabilities,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        # The runtime's own profile allows bpf(2) to whoever has CAP_BPF.
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _mounts(spec: Spec) -> list[Object]:
    mounts: list[Object] = [
        {"name": VOLUME, "mountPath": _DATA},
        {"name": "config", "mountPath": _CONFIG, "readOnly": True},
        {"name": "certificates", "mountPath": _CERTIFICATES, "readOnly": True},
        {"name": "sockets", "mountPath": _SOCKETS},
        {"name": "scratch", "mountPath": "/tmp"},  # noqa: S108
    ]
    if spec.ebpf.enabled:
        mounts.append({"name": "bpf", "mountPath": _BPF})
    return mounts


def _volumes(key: ClusterKey, spec: Spec) -> list[Object]:
    volumes: list[Object] = [
        {"name": "config", "configMap": {"name": key.config_map}},
        # The agent refuses a key that others can read.
        {"name": "certificates", "secret": {"secretName": key.nodes_secret, "defaultMode": 0o400}},
        {"name": "sockets", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "scratch", "emptyDir": {"sizeLimit": "64Mi"}},
    ]
    if spec.ebpf.enabled:
        volumes.append({"name": "bpf", "hostPath": {"path": _BPF, "type": "Directory"}})
    return volumes


def _affinity(key: ClusterKey, spec: Spec) -> Object:
    apart = {
        "labelSelector": {"matchLabels": key.selector()},
        "topologyKey": "kubernetes.io/hostname",
    }
    found: Object = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}}
    if spec.placement.node_affinity:
        found["nodeAffinity"] = spec.placement.node_affinity
    return found


def _probes(spec: Spec) -> Object:
    def probe(path: str, **more: int) -> Object:
        get: Object = {"path": path, "port": spec.ports.http}
        if spec.network.http_on_loopback:
            get["host"] = "127.0.0.1"
        return {"httpGet": get, "timeoutSeconds": 5, **more}

    return {
        # A start reads the log and the snapshot, which may be long on a slow disk.
        "startupProbe": probe("/healthz", periodSeconds=2, failureThreshold=450),
        "livenessProbe": probe("/healthz", periodSeconds=10, failureThreshold=6),
        "readinessProbe": probe("/readyz", periodSeconds=2, failureThreshold=2),
    }
