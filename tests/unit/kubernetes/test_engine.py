"""The engine against a cluster in memory, from nothing to the end."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.kubernetes.driving import Turn, make_engine, run_until, settle
from tests.unit.kubernetes.world import BAD_IMAGE, KEY, World


def condition(world: World, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        item for item in world.resource["status"]["conditions"] if item["type"] == kind
    )
    return found


def settled(**spec: Any) -> World:
    world = World(spec)
    settle(world, make_engine(world))
    return world


@pytest.mark.parametrize("replicas", [1, 3, 5])
def test_a_cluster_comes_up(replicas: int) -> None:
    world = settled(replicas=replicas)
    status = world.resource["status"]
    assert condition(world, "Available")["reason"] == "QuorumHealthy"
    assert condition(world, "Progressing")["reason"] == "TargetReached"
    assert condition(world, "Degraded")["status"] == "False"
    assert status["voters"] == status["readyReplicas"] == replicas
    assert status["clusterId"] == world.raft.cluster
    assert [member["name"] for member in status["members"]] == [
        KEY.pod(ordinal) for ordinal in range(replicas)
    ]


def test_it_grows_and_shrinks() -> None:
    world = settled(replicas=3)
    engine = make_engine(world)
    for replicas in (5, 3, 1, 3):
        world.change_spec(replicas=replicas)
        settle(world, engine)


def test_an_update_reaches_every_pod_and_the_leader_last() -> None:
    world = settled(replicas=3)
    leader = world.raft.members[world.raft.leader].name
    before = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in world.all("pods")}
    order: list[str] = []
    world.change_spec(image="agent:2")
    engine = make_engine(world)

    def is_done() -> bool:
        for pod in world.all("pods"):
            metadata = pod["metadata"]
            if metadata["uid"] != before[metadata["name"]] and metadata["name"] not in order:
                order.append(metadata["name"])
        return not world.differences()

    run_until(world, engine, is_done)
    assert sorted(order) == [KEY.pod(ordinal) for ordinal in range(3)]
    assert order[-1] == leader


@pytest.mark.parametrize("replicas", [1, 2])
def test_where_none_can_be_spared_an_update_is_made_all_the_same(replicas: int) -> None:
    world = settled(replicas=replicas, allowEven=True)
    world.change_spec(image="agent:2")
    settle(world, make_engine(world))


def test_an_image_that_does_not_come_stops_an_update_at_the_first_pod() -> None:
    world = settled(replicas=3)
    world.change_spec(image=BAD_IMAGE)
    engine = make_engine(world)
    for _ in range(50):
        world.tick(Turn(engine).finish())
    assert world.raft.healthy_voters() == 2
    assert condition(world, "Available")["reason"] == "QuorumAvailable"
    assert "ImagePullBackOff" in condition(world, "Degraded")["message"]
    world.change_spec(image="agent:3")
    settle(world, engine)


def test_a_single_member_comes_back_from_an_image_that_does_not_come() -> None:
    world = settled(replicas=1)
    world.change_spec(image=BAD_IMAGE)
    engine = make_engine(world)
    for _ in range(20):
        world.tick(Turn(engine).finish())
    assert condition(world, "Available")["reason"] == "QuorumLost"
    world.change_spec(image="agent:3")
    settle(world, engine)


def test_a_member_whose_node_is_gone_is_replaced_on_another() -> None:
    world = settled(replicas=3)
    pod = world.find("pods", "kv-1")
    assert pod is not None
    before = {voter.id for voter in world.raft.voters()}
    world.lose_node(pod["spec"]["nodeName"])
    settle(world, make_engine(world))
    assert len(before & {voter.id for voter in world.raft.voters()}) == 2


def test_a_silent_node_is_waited_for() -> None:
    world = settled(replicas=3, placement={"replaceAfterSeconds": 300})
    pod = world.find("pods", "kv-1")
    assert pod is not None
    before = {voter.id for voter in world.raft.voters()}
    engine, began = make_engine(world), world.seconds
    world.fail_node(pod["spec"]["nodeName"])
    run_until(world, engine, lambda: world.seconds - began > 290)
    assert {voter.id for voter in world.raft.voters()} == before
    settle(world, engine)
    assert {voter.id for voter in world.raft.voters()} != before


def test_a_cluster_shrinks_where_a_lost_member_has_no_node_to_go_to() -> None:
    world = World({"replicas": 5}, node_count=5)
    engine = make_engine(world)
    settle(world, engine)
    pod = world.find("pods", "kv-1")
    assert pod is not None
    world.lose_node(pod["spec"]["nodeName"])
    world.change_spec(replicas=3)
    settle(world, engine)


def test_without_a_quorum_nothing_is_touched() -> None:
    world = settled(replicas=3)
    for name in ("kv-0", "kv-1"):
        pod = world.find("pods", name)
        assert pod is not None
        world.fail_node(pod["spec"]["nodeName"])
    engine = make_engine(world)
    members, volumes = dict(world.raft.members), dict(world.volumes)
    world.change_spec(image="agent:2", replicas=5)
    for _ in range(400):
        world.tick(Turn(engine).finish())
    assert world.raft.members == members
    assert volumes.items() <= world.volumes.items()
    assert condition(world, "Available")["reason"] == "QuorumLost"
    assert condition(world, "Degraded")["reason"] == "QuorumLost"
    for node in world.nodes:
        world.mend_node(node)
    settle(world, engine)


def test_paused_means_that_only_the_status_is_written() -> None:
    world = settled(replicas=3)
    world.change_spec(replicas=5, paused=True)
    engine = make_engine(world)
    before = {key: item for key, item in world.objects.items() if key[0] != "raftclusters"}
    versions = {key: item["metadata"]["resourceVersion"] for key, item in before.items()}
    for _ in range(10):
        Turn(engine).finish()
    assert condition(world, "Progressing")["reason"] == "Paused"
    assert versions == {
        key: item["metadata"]["resourceVersion"]
        for key, item in world.objects.items()
        if key[0] != "raftclusters"
    }
    world.change_spec(paused=False)
    settle(world, engine)


def test_a_target_is_kept_until_it_is_reached() -> None:
    world = settled(replicas=3)
    engine = make_engine(world)
    world.change_spec(replicas=5)
    Turn(engine).finish()
    world.change_spec(replicas=1)
    seen = set()

    def is_done() -> bool:
        seen.add(len(world.raft.voters()))
        return not world.differences()

    run_until(world, engine, is_done)
    assert seen >= {3, 4, 5}


def test_a_target_out_of_reach_is_given_up_when_its_time_is_over() -> None:
    world = World({"replicas": 3}, node_count=4)
    engine = make_engine(world)
    settle(world, engine)
    world.change_spec(replicas=5)
    run_until(world, engine, lambda: len(world.raft.voters()) == 4)
    world.change_spec(replicas=3)
    began = world.seconds
    settle(world, engine, wait_s=10)
    assert world.seconds - began > 500


def test_a_bad_spec_is_told_and_changes_nothing() -> None:
    world = settled(replicas=3)
    world.change_spec(replicas=4)
    before = dict(world.raft.members)
    Turn(make_engine(world)).finish()
    assert condition(world, "Degraded")["reason"] == "InvalidSpec"
    assert condition(world, "Available")["reason"] == "QuorumHealthy"
    assert world.raft.members == before


def test_a_cluster_that_is_made_anew_goes_on_with_its_volumes() -> None:
    world = settled(replicas=3)
    for key in [key for key in world.objects if key[0] in ("configmaps", "statefulsets")]:
        del world.objects[key]
    for pod in world.all("pods"):
        world._end_pod(pod)
    del world.resource["status"]
    members = dict(world.raft.members)
    settle(world, make_engine(world))
    assert world.raft.founded == 1
    assert world.raft.members.keys() == members.keys()


def test_volumes_without_data_do_not_keep_a_cluster_from_being_founded() -> None:
    world = World({"replicas": 3})
    for ordinal in range(2):
        name = {"name": KEY.volume_claim(ordinal), "labels": KEY.selector()}
        claim = world._store("persistentvolumeclaims", {"metadata": name})
        world.volumes[claim["metadata"]["uid"]] = world.raft.make_volume()
    settle(world, make_engine(world))


def test_nothing_is_written_while_nothing_changes() -> None:
    world = settled(replicas=3)
    engine = make_engine(world)
    Turn(engine).finish()
    versions = {key: item["metadata"]["resourceVersion"] for key, item in world.objects.items()}
    began = world.seconds
    while world.seconds - began < 600:
        world.tick(Turn(engine).finish())
    after = {key: item["metadata"]["resourceVersion"] for key, item in world.objects.items()}
    assert after == versions


def test_a_pod_says_whether_its_member_votes() -> None:
    world = settled(replicas=3)
    labels = [pod["metadata"]["labels"]["raft-ebpf.dev/role"] for pod in world.all("pods")]
    assert labels == ["voter"] * 3
    budget = world.find("poddisruptionbudgets", "kv")
    assert budget is not None
    assert budget["spec"]["minAvailable"] == 2


def test_a_budget_that_nobody_wants_goes() -> None:
    world = settled(replicas=3)
    world.change_spec(pdb={"enabled": False})
    settle(world, make_engine(world))
    assert world.find("poddisruptionbudgets", "kv") is None
