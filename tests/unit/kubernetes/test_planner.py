"""The planner's rules as tables: what is seen, what is asked for, what follows."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from raft_operator import actions
from raft_operator.actions import Action, Wait
from raft_operator.model import Agent, Claim, Desired, Member, Membership, Observed, Pod
from raft_operator.planner import plan
from raft_operator.words import words_of

CLUSTER = "c0ffee"
THREE = Desired("kv", 3)


def agent(ordinal: int, **fields: Any) -> Agent:
    names = ("kv-0", "kv-1", "kv-2")
    return Agent(**{"id": f"id{ordinal}", "cluster_id": CLUSTER, "members": names, **fields})


def blank(ordinal: int) -> Agent:
    return Agent(f"new{ordinal}", "")


def pod(ordinal: int, **fields: Any) -> Pod:
    found = {
        "name": f"kv-{ordinal}",
        "ordinal": ordinal,
        "uid": f"uid{ordinal}",
        "node": f"node{ordinal}",
        "address": f"10.0.0.{ordinal}:5555",
        "role": "voter",
        "agent": agent(ordinal),
    }
    return Pod(**{**found, **fields})


def claim(ordinal: int, **fields: Any) -> Claim:
    return Claim(
        **{"ordinal": ordinal, "uid": f"claim{ordinal}", "home": f"node{ordinal}", **fields}
    )


def member(ordinal: int, **fields: Any) -> Member:
    address = f"10.0.0.{ordinal}:5555"
    return Member(**{"name": f"kv-{ordinal}", "id": f"id{ordinal}", "address": address, **fields})


def cluster(count: int = 3, **fields: Any) -> Observed:
    """A healthy one of `count` members; kv-0 leads."""
    found = {
        "cluster_id": CLUSTER,
        "wanted_pods": count,
        "pods": tuple(pod(ordinal) for ordinal in range(count)),
        "claims": tuple(claim(ordinal) for ordinal in range(count)),
        "membership": Membership("kv-0", 7, tuple(member(ordinal) for ordinal in range(count))),
    }
    return Observed(**{**found, **fields})


def with_pods(observed: Observed, *changed: Pod) -> Observed:
    pods = {item.ordinal: item for item in (*observed.pods, *changed)}
    return msgspec.structs.replace(observed, pods=tuple(pods[key] for key in sorted(pods)))


def with_members(observed: Observed, *changed: Member, without: str = "") -> Observed:
    assert observed.membership is not None
    members = {item.name: item for item in (*observed.membership.members, *changed)}
    members.pop(without, None)
    kept = tuple(members[name] for name in sorted(members))
    return msgspec.structs.replace(
        observed, membership=msgspec.structs.replace(observed.membership, members=kept)
    )


DOWN = {"agent": None}
ILL = {"health": "unreachable"}
STUCK: dict[str, Any] = {"node": "", "is_stuck": True, "agent": None, "address": ""}

FOUNDING = {
    "nothing is there": (
        Observed(is_remembered=False),
        actions.Remember(founds=True),
    ),
    "volumes are there already": (
        Observed(is_remembered=False, claims=(claim(0),)),
        actions.Remember(founds=False),
    ),
    "it is noted that the seed founds": (
        Observed(founds=True),
        actions.SetPods(1),
    ),
    "volumes of five are looked into": (
        Observed(claims=tuple(claim(ordinal) for ordinal in range(5))),
        actions.SetPods(5),
    ),
    "the seed starts": (
        Observed(founds=True, wanted_pods=1, pods=(pod(0, **DOWN),), claims=(claim(0),)),
        Wait("kv-0 is to found the cluster"),
    ),
    "the seed has founded": (
        Observed(founds=True, wanted_pods=1, pods=(pod(0),), claims=(claim(0),)),
        actions.Remember(founds=False, cluster_id=CLUSTER),
    ),
    "the seed was started to wait": (
        Observed(founds=True, wanted_pods=1, pods=(pod(0, agent=blank(0)),), claims=(claim(0),)),
        actions.RestartPod("kv-0", "uid0", "it is to found the cluster"),
    ),
    "others are there while the seed is to found": (
        Observed(founds=True, wanted_pods=2, pods=(pod(0, **DOWN),), claims=(claim(0),)),
        actions.SetPods(1),
    ),
    "two clusters are there": (
        Observed(
            wanted_pods=3,
            pods=(pod(0), pod(1, agent=agent(1, cluster_id="other"))),
            claims=(claim(0), claim(1)),
        ),
        Wait("the pods hold 2 different clusters: delete the wrong volumes"),
    ),
    "all volumes are empty": (
        Observed(
            wanted_pods=3,
            pods=tuple(pod(ordinal, agent=blank(ordinal)) for ordinal in range(3)),
            claims=tuple(claim(ordinal) for ordinal in range(3)),
        ),
        actions.Remember(founds=True),
    ),
    "one of three empty volumes is not known": (
        Observed(
            wanted_pods=3,
            pods=(pod(0, agent=blank(0)), pod(1, agent=blank(1)), pod(2, **DOWN)),
            claims=tuple(claim(ordinal) for ordinal in range(3)),
        ),
        Wait("volumes of a former cluster are there: all of them have to be looked into"),
    ),
    "the cluster is founded": (
        cluster(1),
        actions.SetPods(3),
    ),
}

MEMBERS = {
    "all is well": (cluster(), None),
    "objects differ": (cluster(drift=("Service kv",)), actions.WriteObjects(("Service kv",))),
    "a pod waits to be joined": (
        with_members(with_pods(cluster(), pod(2, agent=blank(2), role="")), without="kv-2"),
        actions.Join("kv-2", "10.0.0.2:5555", 7),
    ),
    "two wait": (
        with_pods(cluster(1, wanted_pods=3), *(pod(n, agent=blank(n), role="") for n in (1, 2))),
        actions.Join("kv-1", "10.0.0.1:5555", 7),
    ),
    "one is a learner still": (
        with_pods(
            with_members(cluster(1, wanted_pods=3), member(1, role="learner", state="joining")),
            pod(1, role="learner"),
            pod(2, agent=blank(2), role=""),
        ),
        Wait("kv-1 catches up, and becomes a voter then"),
    ),
    "a learner was to stay one": (
        with_pods(with_members(cluster(), member(2, role="learner")), pod(2, role="learner")),
        actions.Promote("kv-2", 7),
    ),
    "a change is on its way": (
        cluster(membership=Membership("kv-0", 7, (member(0),), is_pending=True)),
        Wait("a change of the members is on its way"),
    ),
    "a pod's label is wrong": (
        with_pods(cluster(), pod(1, role="learner")),
        actions.LabelPod("kv-1", "uid1", "voter"),
    ),
    "a member has moved": (
        with_pods(cluster(), pod(1, address="10.9.9.9:5555")),
        actions.Move("kv-1", "10.9.9.9:5555", 7),
    ),
    "a member's volume is empty": (
        with_members(with_pods(cluster(), pod(2, agent=blank(2))), member(2, **ILL)),
        actions.Leave("kv-2", 7, "its volume is a new one, and what it had promised is gone"),
    ),
    "a member's node is gone": (
        with_members(with_pods(cluster(), pod(2, node_is_lost=True, **DOWN)), member(2, **ILL)),
        actions.Leave("kv-2", 7, "its node is gone"),
    ),
    "its node is gone, and the leader hears it": (
        with_pods(cluster(), pod(2, node_is_lost=True, **DOWN)),
        None,
    ),
    "a member is down, and may come back": (
        with_members(with_pods(cluster(), pod(2, **DOWN)), member(2, **ILL)),
        Wait("kv-2 is unreachable"),
    ),
    "two of five nodes are gone": (
        with_members(
            with_pods(cluster(5), *(pod(n, node_is_lost=True, **DOWN) for n in (1, 2))),
            member(1, **ILL),
            member(2, **ILL),
        ),
        actions.Leave("kv-1", 7, "its node is gone"),
    ),
    "no member any more, and its node is gone": (
        with_members(
            with_pods(cluster(), pod(2, node_is_lost=True, role="", **DOWN)), without="kv-2"
        ),
        actions.ReplacePod("kv-2", "uid2", 2, "claim2", 7, True, "its node is gone"),
    ),
    "a claim went while its pod has no node": (
        with_pods(cluster(claims=(claim(0), claim(1))), pod(2, **STUCK)),
        actions.RestartPod("kv-2", "uid2", "its volume claim is gone"),
    ),
    "the volume claim is not noted": (
        cluster(claims=(claim(0), claim(1, home=""), claim(2))),
        actions.NoteHome(1, "claim1", "node1"),
    ),
    "a member's node is taken by nobody's pod": (
        with_members(
            with_pods(cluster(), pod(1, **STUCK), pod(2, node="node1", agent=blank(2), role="")),
            member(1, **ILL),
            without="kv-2",
        ),
        actions.NoteHome(2, "claim2", "node1"),
    ),
    "the same, once that is noted": (
        with_members(
            with_pods(
                cluster(claims=(claim(0), claim(1), claim(2, home="node1"))),
                pod(1, **STUCK),
                pod(2, node="node1", agent=blank(2), role=""),
            ),
            member(1, **ILL),
            without="kv-2",
        ),
        actions.ReplacePod(
            "kv-2", "uid2", 2, "claim2", 7, False, "kv-1 has its volume on that node"
        ),
    ),
}


def removed(observed: Observed, *ids: str) -> Observed:
    assert observed.membership is not None
    membership = msgspec.structs.replace(observed.membership, removed=frozenset(ids))
    return msgspec.structs.replace(observed, membership=membership)


DEAD = with_members(
    with_pods(cluster(), pod(2, role="", agent=agent(2, is_removed=True))), without="kv-2"
)

VOLUMES = {
    "a volume holds a removed id": (
        removed(DEAD, "id2"),
        actions.ReplacePod("kv-2", "uid2", 2, "claim2", 7, False, "its id is refused for ever"),
    ),
    "the agent says so, and the leader does not": (
        DEAD,
        Wait("kv-2 has to come up, to become a member"),
    ),
    "it was left behind by a recovery": (
        removed(
            with_pods(DEAD, pod(2, role="", agent=agent(2, is_removed=True, is_superseded=True))),
            "id2",
        ),
        Wait("kv-2 has to come up, to become a member"),
    ),
    "it holds another cluster": (
        removed(
            with_pods(DEAD, pod(2, role="", agent=agent(2, is_removed=True, cluster_id="x"))),
            "id2",
        ),
        Wait("kv-2 has to come up, to become a member"),
    ),
    "an empty one has a removed id": (
        removed(with_pods(DEAD, pod(2, role="", agent=blank(2))), "new2"),
        actions.ReplacePod("kv-2", "uid2", 2, "claim2", 7, False, "its id is refused for ever"),
    ),
    "a scaled one is left over": (
        cluster(claims=tuple(claim(ordinal) for ordinal in range(4))),
        actions.DeleteVolume(3, "claim3", 7),
    ),
}

SHRINKING = {
    "five, three asked for": (
        cluster(5),
        actions.Leave("kv-4", 7, "fewer members are asked for"),
    ),
    "one that stays is down": (
        with_members(with_pods(cluster(5), pod(1, **DOWN)), member(1, **ILL)),
        Wait("kv-1 has to be healthy before kv-4 leaves"),
    ),
    "one that leaves is down": (
        with_members(with_pods(cluster(5), pod(3, **DOWN)), member(3, **ILL)),
        actions.Leave("kv-3", 7, "fewer members are asked for"),
    ),
    "one that stays is no member, and waits for a node": (
        with_members(with_pods(cluster(5), pod(1, role="", **STUCK)), without="kv-1"),
        actions.Leave("kv-4", 7, "fewer members are asked for"),
    ),
    "a pod has no member any more": (
        with_members(with_pods(cluster(5), pod(4, role="")), without="kv-4"),
        actions.SetPods(4),
    ),
}


@pytest.mark.parametrize("case", FOUNDING)
def test_founding(case: str) -> None:
    observed, step = FOUNDING[case]
    assert plan(observed, THREE) == step


@pytest.mark.parametrize("case", MEMBERS)
def test_members(case: str) -> None:
    observed, step = MEMBERS[case]
    found = plan(observed, Desired("kv", max(3, len(observed.pods))))
    assert found == step


@pytest.mark.parametrize("case", VOLUMES)
def test_volumes(case: str) -> None:
    observed, step = VOLUMES[case]
    assert plan(observed, THREE) == step


@pytest.mark.parametrize("case", SHRINKING)
def test_shrinking(case: str) -> None:
    observed, step = SHRINKING[case]
    assert plan(observed, THREE) == step


def test_volumes_are_kept_where_that_is_asked_for() -> None:
    keeps = Desired("kv", 3, deletes_scaled_volumes=False)
    assert plan(VOLUMES["a scaled one is left over"][0], keeps) is None
    found = plan(VOLUMES["a volume holds a removed id"][0], keeps)
    assert found == Wait("the volume of kv-2 holds a removed id: delete it, or the claim")


def outdated(count: int, *which: int) -> Observed:
    observed = cluster(count)
    return with_pods(observed, *(pod(ordinal, is_outdated=True) for ordinal in which))


RESTART_2 = actions.RestartPod("kv-2", "uid2", "it is outdated")
UPDATES = {
    "all are outdated": (outdated(3, 0, 1, 2), RESTART_2),
    "the leader is the last": (outdated(3, 0), actions.HandOver("kv-0", "kv-1")),
    "a single member": (outdated(1, 0), actions.RestartPod("kv-0", "uid0", "it is outdated")),
    "two members": (outdated(2, 1), actions.RestartPod("kv-1", "uid1", "it is outdated")),
    "another one lags": (
        with_members(outdated(3, 2), member(1, health="lagging")),
        Wait("all others have to have caught up before kv-2 is made anew"),
    ),
    "another one stops": (
        with_pods(outdated(3, 2), pod(1, is_stopping=True, agent=None)),
        Wait("kv-1 has to be up before kv-2 is made anew"),
    ),
    "one stops already": (
        with_pods(outdated(3, 0, 1), pod(2, is_outdated=True, is_stopping=True)),
        Wait("kv-2 stops, to be made anew"),
    ),
    "a broken one goes first": (
        with_members(
            with_pods(outdated(3, 0, 1), pod(1, is_outdated=True, **DOWN)), member(1, **ILL)
        ),
        actions.RestartPod("kv-1", "uid1", "it is outdated, and takes no part"),
    ),
    "a pod waits for a node": (
        with_members(with_pods(outdated(3, 2), pod(1, role="", **STUCK)), without="kv-1"),
        Wait("kv-1 finds no node, and would take that of kv-2"),
    ),
}


@pytest.mark.parametrize("case", UPDATES)
def test_updates(case: str) -> None:
    observed, step = UPDATES[case]
    desired = Desired("kv", len(observed.pods))
    assert plan(observed, desired) == step


LOST = cluster(membership=None)
WITHOUT_QUORUM = {
    "nobody leads": (LOST, Wait("no leader with a quorum answers")),
    "outdated pods run": (
        with_pods(LOST, pod(2, is_outdated=True)),
        Wait("no leader with a quorum answers"),
    ),
    "an outdated pod runs, and does not answer": (
        with_pods(LOST, pod(2, is_outdated=True, **DOWN)),
        Wait("no leader with a quorum answers"),
    ),
    "an outdated pod does not run": (
        with_pods(LOST, pod(2, is_outdated=True, is_running=False, **DOWN)),
        actions.RestartPod("kv-2", "uid2", "it does not come up with the former template"),
    ),
    "a pod waits to be joined": (
        with_pods(LOST, pod(2, agent=blank(2))),
        Wait("no leader with a quorum answers"),
    ),
    "nodes are gone": (
        with_pods(LOST, pod(1, node_is_lost=True, **DOWN), pod(2, node_is_lost=True, **DOWN)),
        Wait("no leader with a quorum answers"),
    ),
    "somebody scaled the pods away": (
        cluster(membership=None, wanted_pods=1, pods=(pod(0),)),
        actions.SetPods(3),
    ),
    "people ask for a rescue": (
        msgspec.structs.replace(LOST, rescue=CLUSTER),
        actions.Rescue(CLUSTER),
    ),
    "people ask for another cluster's rescue": (
        msgspec.structs.replace(LOST, rescue="other"),
        Wait("no leader with a quorum answers"),
    ),
    "people ask, and a quorum answers": (cluster(rescue=CLUSTER), actions.DropRescue()),
}


@pytest.mark.parametrize("case", WITHOUT_QUORUM)
def test_without_a_quorum(case: str) -> None:
    observed, step = WITHOUT_QUORUM[case]
    assert plan(observed, THREE) == step


ALL = {**FOUNDING, **MEMBERS, **VOLUMES, **SHRINKING, **UPDATES, **WITHOUT_QUORUM}


@pytest.mark.parametrize("case", ALL)
def test_paused_means_that_nothing_is_done(case: str) -> None:
    assert plan(ALL[case][0], Desired("kv", 3, is_paused=True)) is None


def test_every_step_has_words() -> None:
    steps = [step for _, step in ALL.values()]
    kinds = {type(step) for step in steps if step is not None}
    missing = {kind.__name__ for kind in Action.__args__} - {kind.__name__ for kind in kinds}
    assert missing == set()
    for step in steps:
        assert words_of(step)
