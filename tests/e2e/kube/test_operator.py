"""The operator dies, is cut off and is turned away; it goes on without hands."""

from __future__ import annotations

import http.client
import os
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.kube.clusters import Cluster
from tests.e2e.kube.lab.lab import Lab
from tests.e2e.kube.place import Operator, Place
from tests.e2e.kube.test_faults import gone, members, node_of, wait_replaced
from tests.kernel.netns import inside

pytestmark = pytest.mark.long

Make = Callable[[str], Cluster]


@contextmanager
def dying(operator: Operator, cluster: Cluster) -> Iterator[list[str]]:
    """Within this block the operator is killed whenever it says that it is about to do something
    that it has not said before, and started again; yields what it was about to do each time.
    """
    deaths: list[str] = []
    ends = threading.Event()
    about_to = re.compile(rf" raft\.operator: {cluster.namespace}/{cluster.name}: (.+)")

    def kill() -> None:
        with operator.log.open() as log:
            log.seek(0, os.SEEK_END)
            while not ends.is_set():
                found = about_to.search(log.readline())
                if found is None:
                    ends.wait(0.01)
                elif found[1] not in deaths:
                    deaths.append(found[1])
                    operator.kill()
                    operator.start()

    thread = threading.Thread(target=kill, name="killer")
    thread.start()
    try:
        yield deaths
    finally:
        ends.set()
        thread.join()


@contextmanager
def crowd(lab: Lab) -> Iterator[list[int]]:
    """Eight clients that ask for all pods without a pause; yields the answers (HTTP's 429) of the
    API server that it has no time.
    """
    turned_away: list[int] = []
    ends = threading.Event()
    context = ssl.create_default_context(cadata=lab.control.authority())
    headers = {"Authorization": f"Bearer {lab.control.tokens.of('crowd')}"}

    def ask() -> None:
        while not ends.is_set():
            connection = http.client.HTTPSConnection(lab.control.address, context=context)
            try:
                connection.request("GET", "/api/v1/pods", headers=headers)
                answer = connection.getresponse()
                answer.read()
            except OSError:
                continue
            finally:
                connection.close()
            if answer.status == 429:
                turned_away.append(answer.status)

    with inside(lab.hub):
        threads = [threading.Thread(target=ask, name="crowd") for _ in range(8)]
        for thread in threads:
            thread.start()
    try:
        yield turned_away
    finally:
        ends.set()
        for thread in threads:
            thread.join()


def test_an_operator_that_dies_at_each_step_of_a_growth_and_a_shrinking_ends_them(
    make: Make, operator: Operator
) -> None:
    cluster = make("raft")
    with dying(operator, cluster) as deaths:
        cluster.create(3)
        cluster.wait_settled(3, 120)
        with cluster.writing():
            cluster.change(replicas=5)
            cluster.wait_settled(5, 150)
            cluster.change(replicas=3)
            cluster.wait_settled(3, 150)
    assert len(deaths) >= 4, deaths


def test_an_operator_that_dies_at_each_step_of_an_update_ends_it(
    make: Make, operator: Operator, place: Place
) -> None:
    cluster = make("raft")
    cluster.create(3)
    before = cluster.wait_settled(3)
    image, _, tag = place.later_image.rpartition(":")
    with cluster.writing(), dying(operator, cluster) as deaths:
        cluster.change(image=image, version=tag)

        def updated() -> bool | None:
            images = {pod["spec"]["containers"][0]["image"] for pod in cluster.pods().values()}
            return True if images == {place.later_image} else None

        cluster.wait("to be updated", updated, 180)
        after = cluster.wait_settled(3, 60)
    assert len(deaths) >= 3, deaths
    ids = {each["name"]: each["id"] for each in before["members"]}
    assert ids == {each["name"]: each["id"] for each in after["members"]}


def test_an_operator_that_dies_at_each_step_of_a_replacement_ends_it(
    make: Make, operator: Operator, lab: Lab
) -> None:
    cluster = make("raft")
    cluster.create(3, placement={"replaceAfterSeconds": 10})
    cluster.wait_settled(3)
    before = members(cluster)
    lost = next(name for name in sorted(before) if name != cluster.leader())
    node = node_of(cluster, lab, lost)
    with cluster.writing(), dying(operator, cluster) as deaths, gone(lab, node):
        wait_replaced(cluster, lost, before[lost])
        cluster.wait_settled(3, 150)
        assert node_of(cluster, lab, lost) != node
    assert len(deaths) >= 3, deaths
    after = members(cluster)
    assert {name for name in before if before[name] != after[name]} == {lost}


def test_an_operator_that_dies_at_each_step_of_a_deletion_ends_it(
    make: Make, operator: Operator, place: Place
) -> None:
    cluster = make("raft")
    cluster.create(3, storage={"size": "1Gi", "whenDeleted": "Delete"})
    cluster.wait_settled(3)
    with dying(operator, cluster) as deaths:
        cluster.delete()
    # Its pods, and each of the volumes.
    assert len(deaths) >= 4, deaths
    claims = f"/api/v1/namespaces/{cluster.namespace}/persistentvolumeclaims"
    cluster.api.wait("the volumes to be gone", lambda: not place.api.items(claims) or None, 60)


def test_a_clock_that_jumps_has_nobody_replaced_and_nothing_renewed(
    make: Make, operator: Operator, lab: Lab
) -> None:
    """The clock of the operator's machine. By an hour more the silent node's member would be
    replaced, and by 60 days more all certificates, which nobody could use before that day. It need
    not reach its members meanwhile: its own certificate lasts two days."""
    assert operator.clock is not None
    cluster = make("raft")
    cluster.create(3, placement={"replaceAfterSeconds": 3600})
    cluster.wait_settled(3)
    before, certificates = members(cluster), cluster.secret("certificates")
    node = node_of(cluster, lab, "raft-1")
    ahead_s = 70 * 86_400
    try:
        with cluster.writing():
            node.kill_kubelet()
            try:
                lab.wait_ready(node, "Unknown")
                operator.clock.set_wall(ahead_s)
                cluster.change(progressDeadlineSeconds=700)
                cluster.wait("to be looked at", lambda: cluster.is_observed() or None)
            finally:
                node.start_kubelet()
            lab.wait_ready(node, "True")
            operator.clock.set_wall(-ahead_s)
            cluster.change(progressDeadlineSeconds=600)
            cluster.wait("to be looked at", lambda: cluster.is_observed() or None)
            operator.clock.set_wall(0)
            cluster.wait_settled(3)
            assert members(cluster) == before
            cluster.change(replicas=5)
            cluster.wait_settled(5)
    finally:
        operator.clock.set_wall(0)
    assert members(cluster).items() >= before.items()
    after = cluster.secret("certificates")
    assert {name: after.get(name) for name in certificates} == certificates


def test_an_api_server_that_restarts_is_found_again(make: Make, lab: Lab) -> None:
    cluster = make("raft")
    cluster.create(3)
    cluster.wait_settled(3)
    with cluster.writing():
        cluster.change(replicas=5)
        cluster.wait("to begin", lambda: True if len(cluster.pods()) > 3 else None)
        lab.control.stop_api()
        lab.control.start_api()
        cluster.wait_settled(5, 120)


def test_an_operator_whose_watch_is_cut_without_a_word_sees_what_came_meanwhile(
    make: Make, lab: Lab
) -> None:
    cluster = make("raft")
    cluster.create(1)
    cluster.wait_settled(1)
    with lab.deaf_desk():
        cluster.change(replicas=3)
    cluster.wait_settled(3, 120)


def test_an_operator_that_is_turned_away_tries_again(make: Make, lab: Lab) -> None:
    """429: the API server takes two requests at a time, and a crowd is there."""
    cluster = make("raft")
    cluster.create(1)
    cluster.wait_settled(1)
    lab.control.stop_api()
    lab.control.start_api(
        "--enable-priority-and-fairness=false",
        "--max-requests-inflight=2",
        "--max-mutating-requests-inflight=1",
    )
    try:
        with crowd(lab) as turned_away:
            cluster.wait("to be crowded", lambda: True if turned_away else None)
            cluster.change(replicas=3)
            cluster.wait_settled(3, 120)
    finally:
        lab.control.stop_api()
        lab.control.start_api()
