"""Pods, kubelets and nodes fail; the cluster goes on, and is whole again without hands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.e2e.kube.api import PODS
from tests.e2e.kube.clusters import Cluster
from tests.e2e.kube.lab.lab import Lab
from tests.e2e.kube.lab.nodes import Node

pytestmark = pytest.mark.long

Make = Callable[[str], Cluster]
RESCUE = "raft-ebpf.dev/rescue"


def kill(cluster: Cluster, pod: str) -> None:
    """The pod is killed at once, and another of its name is ready in its place when this returns:
    before that the status may still be the one from before.
    """
    path = f"{PODS.format(cluster.namespace)}/{pod}"
    former = cluster.pods()[pod]["metadata"]["uid"]
    cluster.api.delete(path, gracePeriodSeconds=0)

    def replaced() -> bool | None:
        found = cluster.pods().get(pod)
        if found is None or found["metadata"]["uid"] == former:
            return None
        conditions = found["status"].get("conditions", [])
        return True if {"Ready": "True"} in [{c["type"]: c["status"]} for c in conditions] else None

    cluster.wait(f"to have another {pod}", replaced)


def members(cluster: Cluster) -> dict[str, str]:
    """Ids by name, as the status has them; a pod that is no member yet has none."""
    return {m["name"]: m["id"] for m in cluster.status()["members"] if "id" in m}


def node_of(cluster: Cluster, lab: Lab, pod: str) -> Node:
    return lab.nodes[cluster.pods()[pod]["spec"]["nodeName"]]


@contextmanager
def gone(lab: Lab, node: Node) -> Iterator[None]:
    """The node is off and unplugged in this block."""
    lab.unplug(node.name)
    node.host.power_off()
    try:
        yield
    finally:
        lab.plug_in(node.name)
        lab.restart(node)


def wait_replaced(cluster: Cluster, lost: str, former: str) -> None:
    """Until the member `lost` has another id than `former`."""

    def replaced() -> bool | None:
        return True if members(cluster).get(lost, former) != former else None

    cluster.wait(f"to have another {lost}", replaced, 120)


def test_a_killed_pod_comes_back_as_the_member_that_it_was(make: Make) -> None:
    cluster = make("raft")
    cluster.create(3)
    cluster.wait_settled(3)
    before = members(cluster)
    with cluster.writing():
        follower = next(name for name in sorted(before) if name != cluster.leader())
        kill(cluster, follower)
        cluster.wait_settled(3)
        former = cluster.leader()
        kill(cluster, former)
        cluster.wait_settled(3)
    assert members(cluster) == before


def test_a_kubelet_that_dies_changes_nothing_for_the_members(make: Make, lab: Lab) -> None:
    cluster = make("raft")
    # The node counts as silent, but its member answers: it is not replaced.
    cluster.create(3, placement={"replaceAfterSeconds": 5})
    cluster.wait_settled(3)
    before = members(cluster)
    node = node_of(cluster, lab, "raft-1")
    with cluster.writing():
        node.kill_kubelet()
        try:
            lab.wait_ready(node, "Unknown")
            # The controllers ask for the pod's end; nobody carries it out.
            assert all(m["health"] == "healthy" for m in cluster.status()["members"])
        finally:
            node.start_kubelet()
        lab.wait_ready(node, "True")
        cluster.wait_settled(3)
    assert members(cluster) == before


def test_the_member_of_a_node_that_is_gone_for_good_is_replaced_on_a_spare(
    make: Make, lab: Lab
) -> None:
    cluster = make("raft")
    cluster.create(3, placement={"replaceAfterSeconds": 10})
    cluster.wait_settled(3)
    before = members(cluster)
    lost = next(name for name in sorted(before) if name != cluster.leader())
    node = node_of(cluster, lab, lost)
    with cluster.writing(), gone(lab, node):
        wait_replaced(cluster, lost, before[lost])
        cluster.wait_settled(3, 120)
        assert node_of(cluster, lab, lost) != node
    after = members(cluster)
    assert {name for name in before if before[name] != after[name]} == {lost}


def test_a_survivor_goes_on_alone_when_people_say_so_and_only_then(make: Make, lab: Lab) -> None:
    cluster = make("raft")
    cluster.create(3, placement={"replaceAfterSeconds": 10})
    cluster_id = cluster.wait_settled(3)["clusterId"]
    before = members(cluster)
    survivor = cluster.leader()
    cluster.raftctl(survivor, "--forward", "propose", "put", "kept", "value")
    lost = sorted(before.keys() - {survivor})
    with ExitStack() as both:
        for name in lost:
            both.enter_context(gone(lab, node_of(cluster, lab, name)))

        def knows() -> bool | None:
            condition = cluster.condition("Degraded")
            return True if condition.get("reason") == "QuorumLost" else None

        cluster.wait("to know that its quorum is lost", knows)
        cluster.annotate(**{RESCUE: "of-another-cluster"})
        # The nodes would have been given up by now.
        for name in lost:
            lab.wait_ready(node_of(cluster, lab, name), "Unknown")
        assert cluster.condition("Degraded")["reason"] == "QuorumLost"
        assert members(cluster) == before

        cluster.annotate(**{RESCUE: cluster_id})
        for name in lost:
            wait_replaced(cluster, name, before[name])
        cluster.wait_settled(3, 120)
        assert RESCUE not in cluster.get()["metadata"].get("annotations", {})
        for name in cluster.pods():
            assert cluster.raftctl(name, "--forward", "propose", "get", "kept") == "value\n"
