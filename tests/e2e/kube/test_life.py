"""What a RaftCluster does in an ordinary life: it comes up, grows, shrinks and goes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.kube.clusters import Cluster
from tests.e2e.kube.place import Place

pytestmark = pytest.mark.long

Make = Callable[[str], Cluster]


def test_three_members_are_available_within_a_minute_and_the_status_is_true(make: Make) -> None:
    cluster = make("raft")
    cluster.create(3)
    cluster.wait(
        "to be Available",
        lambda: cluster.condition("Available").get("status") == "True" or None,
        60,
    )
    status = cluster.wait_settled(3)
    assert sorted(cluster.pods()) == ["raft-0", "raft-1", "raft-2"]
    found = [cluster.asked(pod, "status") for pod in cluster.pods()]
    leaders = {each["leader"] for each in found}
    assert leaders == {status["leader"]}
    assert [each["node_id"] for each in found if each["role"] == "leader"] == [status["leader"]]
    members = cluster.asked("raft-0", "member", "list")["members"]
    assert {m["name"]: m["id"] for m in members} == {m["name"]: m["id"] for m in status["members"]}
    assert {each["cluster_id"] for each in found} == {status["clusterId"]}
    nodes = {pod["spec"]["nodeName"] for pod in cluster.pods().values()}
    assert len(nodes) == 3
    cluster.raftctl(status["leader"], "send", "hello")
    for pod in cluster.pods():
        assert "hello" in cluster.raftctl(pod, "messages")


def test_a_cluster_grows_and_shrinks_under_writes_and_loses_none(make: Make) -> None:
    cluster = make("raft")
    cluster.create(3)
    cluster.wait_settled(3)
    with cluster.writing() as writers:
        for replicas, timeout_s in ((5, 60), (3, 90), (1, 90), (3, 60)):
            cluster.change(replicas=replicas)
            cluster.wait_settled(replicas, timeout_s)
            assert len(cluster.pods()) == replicas
    print(f"{len(writers.acks)} writes; longest gap {writers.longest_gap_s():.3f} s")


@pytest.mark.parametrize("kept", ["Retain", "Delete"])
def test_a_deleted_cluster_leaves_its_volumes_if_at_all(
    make: Make, place: Place, kept: str
) -> None:
    cluster = make("raft")
    cluster.create(1, storage={"size": "1Gi", "whenDeleted": kept})
    cluster.wait_settled(1)
    cluster.delete()
    left: dict[str, set[str]] = {}
    wanted = {"data-raft-0"} if kept == "Retain" else set()

    def gone() -> bool | None:
        left.clear()
        for kind in ("pods", "services", "configmaps", "secrets", "persistentvolumeclaims"):
            items = place.api.items(f"/api/v1/namespaces/{cluster.namespace}/{kind}")
            left[kind] = {each["metadata"]["name"] for each in items}
        sets = place.api.items(f"/apis/apps/v1/namespaces/{cluster.namespace}/statefulsets")
        volumes = left.pop("persistentvolumeclaims")
        # Kubernetes' own: the account's token and, in later versions, the authority.
        others = {
            name
            for names in left.values()
            for name in names
            if not name.startswith(("default-token-", "kube-root-ca"))
        }
        return True if not sets and not others and volumes == wanted else None

    cluster.api.wait(f"the rest to be gone ({left})", gone, 60)
