"""Several agents on one interface: each has its filters, and leaves the others theirs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from raft_agent.api import protocol
from raft_agent.api.client import RequestFailed
from tests.e2e.agents import LocalCluster, local_cluster, wait_for
from tests.e2e.load import Load
from tests.kernel import netns
from tests.kernel.clusters import PATIENT, kernel, wait_for_state

_EXTRA = f'[ebpf]\nenabled = true\ninterface = "lo"\n[timing]\n{PATIENT}'


@pytest.fixture
def loopback() -> Iterator[tuple[LocalCluster, str]]:
    """(three agents on `lo` of one namespace, its name)."""
    with netns.namespaces("shared") as (namespace,):
        cluster = local_cluster(extra=_EXTRA, wrapper=lambda _: netns.enter(namespace), start=False)
        with cluster as made:
            for agent in made:
                agent.options = ("--enable-fault-injection",)
            made.start()
            yield made, namespace


def _ports_of_filters(namespace: str, side: str) -> list[int]:
    shown = netns.tc(namespace, "filter", "show", "dev", "lo", side)
    words = [line.split() for line in shown.splitlines() if "raft_" in line]
    return sorted(int(line[line.index("handle") + 1], 16) for line in words)


def test_each_agent_has_its_own_filters_and_sees_its_own_peers(
    loopback: tuple[LocalCluster, str],
) -> None:
    cluster, namespace = loopback
    leader = cluster.leader()
    for agent in cluster:
        wait_for_state(agent, "attached")
    ports = sorted(int(agent.address.rpartition(":")[2]) for agent in cluster)
    for side in ("ingress", "egress"):
        assert _ports_of_filters(namespace, side) == ports
    Load(str(leader.socket_path), 8, "shared").run_until(500, lambda: None)
    for agent in cluster:
        if agent is not leader:
            seen = {one.name: one.received.frames for one in kernel(agent).peers}
            assert seen[leader.name]["append_entries"] > 0
    for agent in cluster:
        wait_for_state(agent, "attached")  # nothing is hidden from anybody

    leaving = next(agent for agent in cluster if agent is not leader)
    assert leaving.stop() == 0
    gone = int(leaving.address.rpartition(":")[2])
    wait_for(
        "its filters to go", lambda: gone not in _ports_of_filters(namespace, "egress") or None
    )
    assert _ports_of_filters(namespace, "ingress") == [port for port in ports if port != gone]


def test_faults_are_refused_where_peers_share_an_address(
    loopback: tuple[LocalCluster, str],
) -> None:
    cluster, _ = loopback
    leader = cluster.leader()
    wait_for_state(leader, "attached")
    peer = next(agent.name for agent in cluster if agent is not leader)
    with pytest.raises(RequestFailed, match=r"shares the address 127\.0\.0\.1 with"):
        leader.ask(protocol.FaultSet(1, peer, 1000, 60_000))
