"""What things are called in Kubernetes: the group, labels, annotations, a cluster's objects."""

from __future__ import annotations

import msgspec

GROUP = "raft-ebpf.dev"
VERSION = "v1alpha1"
PLURAL = "raftclusters"
KIND = "RaftCluster"

MANAGER = "raft-operator"
CLUSTER_LABEL = f"{GROUP}/cluster"
# "voter" or "learner", kept by the operator, so that a budget counts voters alone.
ROLE_LABEL = f"{GROUP}/role"
# Of the pod template without its annotations: pods that bear another one are outdated.
TEMPLATE_ANNOTATION = f"{GROUP}/template"
# Of an object as the operator wrote it last, so that what the API server fills in is no difference.
APPLIED_ANNOTATION = f"{GROUP}/applied"
# What the operator is about to do; writing it takes the resource version that was planned with.
CLAIM_ANNOTATION = f"{GROUP}/action"
# On a volume claim: the node where its pod ran, since the claim does not say what node it is on.
NODE_ANNOTATION = f"{GROUP}/node"
# On a RaftCluster, by a person: go on from the best survivor of the cluster with this id.
RESCUE_ANNOTATION = f"{GROUP}/rescue"
FINALIZER = f"{GROUP}/operator"

VOLUME = "data"


def ordinal_of(cluster: str, name: str) -> int | None:
    """Which pod or member of the cluster has this name; None when none of its can have it."""
    head, _, number = name.rpartition("-")
    is_ours = head == cluster and number.isdecimal() and str(int(number)) == number
    return int(number) if is_ours else None


class ClusterKey(msgspec.Struct, frozen=True, order=True):
    """Which cluster."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def stateful_set(self) -> str:
        return self.name

    @property
    def config_map(self) -> str:
        return f"{self.name}-config"

    @property
    def budget(self) -> str:
        return self.name

    @property
    def peers_service(self) -> str:
        return f"{self.name}-peers"

    @property
    def client_service(self) -> str:
        return f"{self.name}-client"

    @property
    def authority_secret(self) -> str:
        return f"{self.name}-authority"

    @property
    def nodes_secret(self) -> str:
        return f"{self.name}-certificates"

    def pod(self, ordinal: int) -> str:
        """The pod's name, which is the member's."""
        return f"{self.name}-{ordinal}"

    def volume_claim(self, ordinal: int) -> str:
        return f"{VOLUME}-{self.name}-{ordinal}"

    def ordinal(self, name: str) -> int | None:
        """Of a pod or member with this name; None when it is none of this cluster's."""
        return ordinal_of(self.name, name)

    def labels(self) -> dict[str, str]:
        """On everything that belongs to the cluster."""
        return {
            "app.kubernetes.io/name": "raft",
            "app.kubernetes.io/instance": self.name,
            "app.kubernetes.io/managed-by": MANAGER,
            CLUSTER_LABEL: self.name,
        }

    def selector(self) -> dict[str, str]:
        """What the cluster's pods are found by; it can't change."""
        return {"app.kubernetes.io/name": "raft", CLUSTER_LABEL: self.name}

    def selector_text(self) -> str:
        return ",".join(f"{key}={value}" for key, value in self.selector().items())
