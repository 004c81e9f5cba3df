"""Pods, kubelets and nodes fail; the cluster goes on, and is whole again without hands."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.kube.api import PODS
from tests.e2e.kube.clusters import Cluster
from tests.e2e.kube.lab.lab import Lab

pytestmark = pytest.mark.long

Make = Callable[[str], Cluster]


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
    node = lab.nodes[cluster.pods()["raft-1"]["spec"]["nodeName"]]
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
    node = lab.nodes[cluster.pods()[lost]["spec"]["nodeName"]]
    with cluster.writing():
        lab.unplug(node.name)
        node.host.power_off()
        try:

            def replaced() -> bool | None:
                found = members(cluster)
                return True if found.get(lost, before[lost]) != before[lost] else None

            cluster.wait(f"to have another {lost}", replaced, 120)
            cluster.wait_settled(3, 120)
            assert cluster.pods()[lost]["spec"]["nodeName"] != node.name
        finally:
            lab.plug_in(node.name)
            lab.restart(node)
    after = members(cluster)
    assert {name for name in before if before[name] != after[name]} == {lost}
