"""With the kernel part on, the program is on the interface of each member's node."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.kube.clusters import Cluster
from tests.e2e.kube.lab.lab import Lab

pytestmark = pytest.mark.long


def test_the_program_is_attached_in_each_pod_and_counts(
    make: Callable[[str], Cluster], lab: Lab
) -> None:
    cluster = make("raft")
    cluster.create(3, ebpf={"enabled": True})
    cluster.wait_settled(3)
    for pod, found in cluster.pods().items():
        state = cluster.asked(pod, "status")["ebpf"]
        assert state["state"] == "attached", state
        assert state["interfaces"] == ["eth0"]
        host = lab.nodes[found["spec"]["nodeName"]].host
        for hook in ("ingress", "egress"):
            assert "raft" in host.run("tc", "filter", "show", "dev", "eth0", hook)
        peers = cluster.asked(pod, "kernel")
        assert peers
    cluster.delete()
