"""A node: containerd and a kubelet, on a host of their own."""

from __future__ import annotations

import json
import signal

import yaml

from tests.e2e.kube.lab.containers import SOCKET, Containers, begin_with, unpacked
from tests.e2e.kube.lab.control_plane import NODE_GRACE_S, ControlPlane
from tests.e2e.kube.lab.hosts import Host

# Each is used once.
VOLUMES = 40


class Node:
    """`pods`: the network of the pods that don't use the host's, as 10.97.101.0/24."""

    def __init__(self, host: Host, address: str, pods: str, control: ControlPlane) -> None:
        self.host = host
        self.name = host.name
        self.address = address
        self._pods = pods
        self._control = control
        self.containers = Containers(host)

    def prepare(self, group: str) -> None:
        """`group`: the control group in which the kubelet makes those of the pods."""
        files = self.host.files
        (files / "cni").mkdir()
        for number in range(VOLUMES):
            (files / "volumes" / str(number)).mkdir(parents=True)
        begin_with(unpacked(), self.host.disk("containerd"))
        (files / "ca.crt").write_text(self._control.authority())
        user = f"system:node:{self.name}"
        (files / "kubeconfig").write_text(self._control.kubeconfig(user, "/lab/home/ca.crt"))
        (files / "kubelet.yaml").write_text(yaml.safe_dump(self._kubelet(group)))
        network = {
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "cni0",
                    "isGateway": True,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": "/run/ipam",
                        "ranges": [[{"subnet": self._pods}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                }
            ],
        }
        (files / "cni" / "pods.conflist").write_text(json.dumps(network))

    def _kubelet(self, group: str) -> dict[str, object]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": "/lab/home/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "address": "0.0.0.0",
            "readOnlyPort": 0,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": group,
            "enforceNodeAllocatable": ["pods"],
            "evictionHard": {
                "nodefs.available": "1%",
                "nodefs.inodesFree": "1%",
                "imagefs.available": "1%",
                "memory.available": "100Mi",
            },
            "failSwapOn": False,
            "imageGCHighThresholdPercent": 100,
            "makeIPTablesUtilChains": False,
            "nodeLeaseDurationSeconds": NODE_GRACE_S,
            "nodeStatusUpdateFrequency": "2s",
            "oomScoreAdj": 0,
            "syncFrequency": "10s",
            "volumePluginDir": "/var/lib/kubelet/plugins",
        }

    def start(self) -> None:
        """containerd answers when this returns; the node comes up by itself."""
        self.containers.start()
        self.start_kubelet()

    def start_kubelet(self) -> None:
        self.host.start(
            *("kubelet", "kubelet", "--config=/lab/home/kubelet.yaml"),
            *("--kubeconfig=/lab/home/kubeconfig", f"--hostname-override={self.name}"),
            *(f"--node-ip={self.address}", "--container-runtime=remote"),
            f"--container-runtime-endpoint=unix://{SOCKET}",
            *("--network-plugin=cni", "--cni-conf-dir=/lab/home/cni", "--cni-bin-dir=/usr/lib/cni"),
        )

    def is_known(self) -> bool | None:
        """Whether its kubelet has told the API server of it."""
        log = self.host.log("kubelet")
        assert self.host.is_running("kubelet"), log.read_text()[-3000:]
        return (
            True
            if self._control.kubectl(
                "get", "nodes", "-o", "name", "--field-selector", f"metadata.name={self.name}"
            )
            else None
        )

    def kill_kubelet(self) -> None:
        """Its pods run on."""
        self.host.stop("kubelet", signal.SIGKILL)

    def volumes(self) -> list[dict[str, object]]:
        """Volumes on its own disk, made in advance as on machines without a storage network."""
        return [
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": f"{self.name}-{number}"},
                "spec": {
                    "capacity": {"storage": "10Gi"},
                    "accessModes": ["ReadWriteOnce"],
                    "persistentVolumeReclaimPolicy": "Retain",
                    "storageClassName": "local",
                    "local": {"path": f"/lab/home/volumes/{number}"},
                    "nodeAffinity": {
                        "required": {
                            "nodeSelectorTerms": [
                                {
                                    "matchExpressions": [
                                        {
                                            "key": "kubernetes.io/hostname",
                                            "operator": "In",
                                            "values": [self.name],
                                        }
                                    ]
                                }
                            ]
                        }
                    },
                },
            }
            for number in range(VOLUMES)
        ]
