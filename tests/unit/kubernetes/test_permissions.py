"""What the operator asks of the API server, and what permissions.yaml grants, is the same."""

from __future__ import annotations

import time
from importlib.resources import files
from typing import Any

import pytest
import yaml

from raft_operator.credentials import SecretCredentials
from raft_operator.deletion import delete_cluster
from raft_operator.resources import Owner
from raft_operator.spec import read_spec
from raft_operator.watchdog import Watchdog
from tests.unit.kubernetes.driving import finish, make_engine, settle
from tests.unit.kubernetes.world import KEY, World, WorldKube

Call = tuple[str, str, str]

# What kopf does by itself: it watches what has handlers, and patches finalizers and its own notes.
KOPF: set[Call] = {
    *(
        (verb, group, resource)
        for verb in ("list", "watch")
        for group, resource in (
            ("raft-ebpf.dev", "raftclusters"),
            ("", "pods"),
            ("apps", "statefulsets"),
            ("apiextensions.k8s.io", "customresourcedefinitions"),
        )
    ),
    ("patch", "raft-ebpf.dev", "raftclusters"),
}


def granted() -> set[Call]:
    text = (files("raft_operator") / "permissions.yaml").read_text()
    rules: dict[str, list[dict[str, Any]]] = yaml.safe_load(text)
    return {
        (verb, group, resource)
        for part in ("namespaced", "cluster")
        for rule in rules[part]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.fixture(scope="module")
def asked() -> set[Call]:
    """All calls of a cluster's life: it grows, shrinks, is updated, loses a node, and ends."""
    world = World({"replicas": 3, "storage": {"whenDeleted": "Delete"}})
    engine = make_engine(world)
    settle(world, engine)
    for change in ({"replicas": 5}, {"replicas": 3}, {"image": "agent:2"}):
        world.change_spec(**change)
        settle(world, engine)
    # A home that has to be noted: the volume was made before its pod had a node.
    claim = world.find("persistentvolumeclaims", "data-kv-1")
    pod = world.find("pods", "kv-1")
    assert claim is not None
    assert pod is not None
    claim["metadata"]["annotations"] = {}
    settle(world, engine)
    world.lose_node(pod["spec"]["nodeName"])
    settle(world, engine)
    for service in world.all("services"):  # somebody has changed them
        service["metadata"]["annotations"] = {}
    settle(world, engine)
    _make_certificates_anew(world)
    world.change_spec(pdb={"enabled": False})
    settle(world, engine)
    world.resource["metadata"]["annotations"] = {"raft-ebpf.dev/rescue": "c0ffee"}
    settle(world, engine)
    assert "raft-ebpf.dev/rescue" not in world.resource["metadata"]["annotations"]
    kube = WorldKube(world)
    finish(delete_cluster(kube, KEY, world.resource))
    for found in world.all("pods"):
        world._end_pod(found)
    world.raft.members.clear()  # all of it ends, and nobody is a member any more
    assert finish(delete_cluster(kube, KEY, world.resource)) == 0
    finish(Watchdog((), time.monotonic).look(kube))
    return world.calls | KOPF


def _make_certificates_anew(world: World) -> None:
    """In the Secrets themselves, which the world has nobody look into."""
    credentials = SecretCredentials(WorldKube(world), world.clock)
    owner = Owner(KEY, world.resource["metadata"]["uid"])
    spec = read_spec(KEY.name, world.resource["spec"])
    for name in ("client", "another"):
        assert finish(credentials.look(owner, spec, {"kv-0": (name,)}))
        finish(credentials.write())
    credentials.close()


def test_all_that_is_asked_for_is_granted(asked: set[Call]) -> None:
    assert asked - granted() == set()


def test_nothing_is_granted_that_is_not_asked_for(asked: set[Call]) -> None:
    assert granted() - asked == set()
