"""What a RaftCluster does in an ordinary life: it comes up, grows, shrinks and goes."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.e2e.kube.api import CLUSTERS
from tests.e2e.kube.clusters import Cluster
from tests.e2e.kube.place import Place

pytestmark = pytest.mark.long

# The operator looks at an idle cluster every thirty seconds.
IDLE_S = int(os.environ.get("RAFT_TEST_IDLE_S", "40"))

Make = Callable[[str], Cluster]


def test_three_members_are_available_in_a_minute_with_a_true_status_that_is_left_alone(
    make: Make,
) -> None:
    cluster = make("raft")
    cluster.create(3)
    cluster.wait(
        "to be Available",
        lambda: cluster.condition("Available").get("status") == "True" or None,
        60,
    )
    cluster.wait_settled(3)
    assert sorted(cluster.pods()) == ["raft-0", "raft-1", "raft-2"]
    assert len({pod["spec"]["nodeName"] for pod in cluster.pods().values()}) == 3
    # It follows elections, which a busy machine may have at any time.
    cluster.wait("to tell the truth", lambda: True if tells_the_truth(cluster) else None)
    cluster.raftctl("raft-1", "--forward", "send", "hello")
    for pod in cluster.pods():
        cluster.wait(f"to show the message in {pod}", lambda pod=pod: shows(cluster, pod, "hello"))
    cluster.wait_settled(3)
    writes_only_what_changed(cluster)


def writes_only_what_changed(cluster: Cluster) -> None:
    """Members that elect anew meanwhile are a change, and on a busy machine they may."""
    found = cluster.get()
    everything = CLUSTERS.format(cluster.namespace)
    for change in cluster.api.changes(everything, found["metadata"]["resourceVersion"], IDLE_S):
        assert change["type"] == "MODIFIED", change
        assert change["object"]["status"] != found["status"], change
        found = change["object"]


def tells_the_truth(cluster: Cluster) -> bool:
    """Whether the status says what the agents say, who all say the same."""
    status = cluster.status()
    found = {pod: cluster.asked(pod, "status") for pod in cluster.pods()}
    leading = [pod for pod, said in found.items() if said["role"] == "leader"]
    members = cluster.asked("raft-0", "--forward", "member", "list")["members"]
    return (
        leading == [status["leader"]]
        and {said["leader"] for said in found.values()} == {status["leader"]}
        and {said["cluster_id"] for said in found.values()} == {status["clusterId"]}
        and {m["name"]: m["id"] for m in members} == {m["name"]: m["id"] for m in status["members"]}
    )


def shows(cluster: Cluster, pod: str, text: str) -> bool | None:
    return True if text in cluster.raftctl(pod, "messages") else None


def test_a_cluster_grows_and_shrinks_under_writes_and_loses_none(make: Make) -> None:
    cluster = make("raft")
    cluster.create(3)
    cluster.wait_settled(3)
    with cluster.writing():
        for replicas, timeout_s in ((5, 60), (3, 90), (1, 90), (3, 60)):
            cluster.change(replicas=replicas)
            cluster.wait_settled(replicas, timeout_s)
            assert len(cluster.pods()) == replicas


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

    try:
        cluster.api.wait("the rest to be gone", gone, 240)
    except AssertionError as error:
        raise AssertionError(f"{error}: {left}") from None
