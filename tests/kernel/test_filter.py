"""The filter: strangers stay out, members of a running change come in, a dead agent opens."""

from __future__ import annotations

import socket

import pytest

from raft_agent.api import protocol
from tests.e2e.agents import Agent, wait_for
from tests.kernel import netns
from tests.kernel.clusters import PORT, IsolatedCluster, ebpf, isolated_cluster, kernel

_PATIENCE_S = 0.5


def _connects(namespace: str, address: str) -> bool:
    """Whether a connection from there can be made."""
    with netns.inside(namespace), socket.socket() as stranger:
        stranger.settimeout(_PATIENCE_S)
        try:
            stranger.connect((address, PORT))
        except TimeoutError:
            return False
        return True


def _wait_guarded(cluster: IsolatedCluster, mode: str) -> None:
    def guarded(agent: Agent) -> bool | None:
        found = ebpf(agent)
        return True if found is not None and found.firewall == mode else None

    cluster.leader()
    for agent in (one for one in cluster if one.process is not None):
        wait_for(f"the filter of {agent.name}", lambda a=agent: guarded(a))


@pytest.mark.parametrize(("mode", "comes_in"), [("audit", True), ("enforce", False)])
def test_a_strangers_connection_is_counted_and_where_enforced_refused(
    mode: str, comes_in: bool
) -> None:
    with isolated_cluster(ebpf=f'firewall = "{mode}"', guests=["stranger"]) as cluster:
        _wait_guarded(cluster, mode)
        node = cluster.followers()[0]
        assert kernel(node).strangers == 0
        came_in = _connects(cluster.guests["stranger"], cluster.addresses[node.name])
        assert came_in == comes_in
        assert kernel(node).strangers >= 1
        events = [event for event in node.events() if event.kind == "kernel_stranger"]
        done = "let through" if comes_in else "refused"
        assert [(event.facts["address"], event.facts["done"]) for event in events] == [
            (cluster.guest_addresses["stranger"], done)
        ]
        assert cluster.leader()  # the members' own connections are as before


def test_a_listed_stranger_comes_in() -> None:
    extra = 'firewall = "enforce"\nfirewall_allow = ["10.9.0.240/28"]'
    with isolated_cluster(ebpf=extra, guests=["stranger"]) as cluster:
        _wait_guarded(cluster, "enforce")
        node = cluster.followers()[0]
        assert _connects(cluster.guests["stranger"], cluster.addresses[node.name])
        assert kernel(node).strangers == 0


def test_a_node_that_is_joined_may_connect_to_all_from_then_on() -> None:
    with isolated_cluster(4, ebpf='firewall = "enforce"', fresh=["node-04"]) as cluster:
        _wait_guarded(cluster, "enforce")
        leader, joined = cluster.leader(), cluster.agents["node-04"]
        joined.start()
        wait_for("node-04 to answer", joined.status)
        address = cluster.addresses["node-04"]
        leader.ask(protocol.Join(1, "node-04", f"{address}:{PORT}"), timeout_s=20)

        def is_voter() -> bool | None:
            status = leader.status()
            return True if status is not None and "node-04" in status.voters else None

        wait_for("node-04 to be a voter", is_voter)
        for agent in cluster:
            if agent is not joined:
                here = cluster.addresses[agent.name]
                wait_for(
                    f"{agent.name} to let it in",
                    lambda a=here: _connects(cluster.namespaces["node-04"], a) or None,
                )


def test_established_connections_are_never_cut() -> None:
    """Only the beginning of a connection is looked at."""
    with isolated_cluster(ebpf='firewall = "enforce"') as cluster:
        _wait_guarded(cluster, "enforce")
        leader = cluster.leader()
        term = _term(leader)
        for number in range(50):
            leader.ask(protocol.Put(1, f"k{number}", b"v", -1))
        assert _term(leader) == term


def _term(agent: Agent) -> int:
    status = agent.status()
    assert status is not None
    return status.term


def test_a_dead_agent_locks_nobody_out() -> None:
    """Its filters are still on the interface, but nobody renews the order to drop."""
    with isolated_cluster(ebpf='firewall = "enforce"', guests=["stranger"]) as cluster:
        _wait_guarded(cluster, "enforce")
        node = cluster.followers()[0]
        stranger, address = cluster.guests["stranger"], cluster.addresses[node.name]
        assert not _connects(stranger, address)
        node.kill()
        filters = netns.tc(
            cluster.namespaces[node.name], "filter", "show", "dev", "eth0", "ingress"
        )
        assert "raft_ingress" in filters
        with netns.inside(cluster.namespaces[node.name]), socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, PORT))
            listener.listen()
            wait_for("the filter to open", lambda: _connects(stranger, address) or None)
