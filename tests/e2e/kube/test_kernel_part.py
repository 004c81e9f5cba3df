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
    assert_attached(cluster, lab)


def test_the_kernel_part_of_a_cluster_that_holds_data_can_be_turned_on_and_off(
    make: Callable[[str], Cluster], lab: Lab
) -> None:
    """The pods' user changes with it; what the former one has written is still read and written."""
    cluster = make("raft")
    cluster.create(3)
    before = cluster.wait_settled(3)
    cluster.raftctl("raft-0", "--forward", "propose", "put", "first", "value")
    cluster.change(ebpf={"enabled": True})
    cluster.wait_settled(3, 120)
    assert_attached(cluster, lab)
    cluster.raftctl("raft-1", "--forward", "propose", "put", "second", "value")
    cluster.change(ebpf={"enabled": False})
    after = cluster.wait_settled(3, 120)
    ids = {each["name"]: each["id"] for each in before["members"]}
    assert ids == {each["name"]: each["id"] for each in after["members"]}
    for pod in cluster.pods():
        assert cluster.asked(pod, "status")["ebpf"]["state"] == "off"
        for key in ("first", "second"):
            assert cluster.raftctl(pod, "--forward", "propose", "get", key) == "value\n"


def assert_attached(cluster: Cluster, lab: Lab) -> None:
    """On the interface of each member's node."""
    for pod, found in cluster.pods().items():
        state = cluster.asked(pod, "status")["ebpf"]
        assert state["state"] == "attached", state
        assert state["interfaces"] == ["eth0"]
        host = lab.nodes[found["spec"]["nodeName"]].host
        for hook in ("ingress", "egress"):
            assert "raft" in host.run("tc", "filter", "show", "dev", "eth0", hook)
        assert cluster.asked(pod, "kernel")
