"""The filter: strangers stay out, members of a running change come in, a dead agent opens."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from raft_agent.api import protocol
from tests.e2e.agents import UNREACHABLE, Agent, wait_for
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
    cluster.leader()
    for agent in (one for one in cluster if one.process is not None):
        _wait_guarded_by(agent, mode)


def _wait_guarded_by(agent: Agent, mode: str) -> None:
    def guarded() -> bool | None:
        found = ebpf(agent)
        return True if found is not None and found.firewall == mode else None

    wait_for(f"the filter of {agent.name}", guarded)


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


def _state_of(agent: Agent, member: str) -> str | None:
    """In the change that is under way: "" when it has no part in it, None for no member."""
    status = agent.status()
    found = {} if status is None else {one.name: one.state for one in status.members}
    return found.get(member)


def _ask_aside(agent: Agent, request: protocol.Request) -> threading.Thread:
    """For what takes until the test lets it go on."""

    def ask() -> None:
        with contextlib.suppress(*UNREACHABLE):
            agent.ask(request, timeout_s=60)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    return thread


def _wait_state(agent: Agent, member: str, state: str | None) -> None:
    what = f"{agent.name} to call {member} {state}"
    wait_for(what, lambda: True if _state_of(agent, member) == state else None)


@contextlib.contextmanager
def _standing_still(agents: list[Agent]) -> Iterator[None]:
    for agent in agents:
        agent.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for agent in agents:
            agent.signal(signal.SIGCONT)


def test_in_a_joint_configuration_who_leaves_is_let_in_until_it_is_over() -> None:
    """Nothing can be committed while both other voters stand still."""
    with isolated_cluster(ebpf='firewall = "enforce"', guests=["stranger"]) as cluster:
        _wait_guarded(cluster, "enforce")
        leader, others = cluster.leader(), cluster.followers()
        leaving = others[0].name
        here = cluster.addresses[leader.name]
        with _standing_still(others):
            change = _ask_aside(leader, protocol.Leave(1, leaving))
            _wait_state(leader, leaving, "leaving")
            assert _connects(cluster.namespaces[leaving], here)
            assert not _connects(cluster.guests["stranger"], here)
        change.join()
        _wait_state(leader, leaving, None)
        wait_for(
            "who has left to be a stranger",
            lambda: None if _connects(cluster.namespaces[leaving], here) else True,
        )


def test_who_is_about_to_come_is_let_in_before_that_is_committed() -> None:
    with isolated_cluster(4, ebpf='firewall = "enforce"', fresh=["node-04"]) as cluster:
        _wait_guarded(cluster, "enforce")
        leader, others, new = cluster.leader(), cluster.followers(), cluster.agents["node-04"]
        new.start()
        wait_for("node-04 to answer", new.status)
        here, there = cluster.addresses[leader.name], cluster.addresses[new.name]
        assert not _connects(cluster.namespaces[new.name], here)
        with _standing_still(others):
            change = _ask_aside(leader, protocol.Join(1, new.name, f"{there}:{PORT}"))
            _wait_state(leader, new.name, "joining")
            wait_for(
                "the leader to let it in",
                lambda: _connects(cluster.namespaces[new.name], here) or None,
            )
            assert _commit_index(leader) < _configuration_index(leader)
        change.join()
        _wait_state(leader, new.name, "")


def _commit_index(agent: Agent) -> int:
    status = agent.status()
    assert status is not None
    return status.commit_index


def _configuration_index(agent: Agent) -> int:
    answer = agent.ask(protocol.MemberList(1))
    assert isinstance(answer, protocol.MemberListResult)
    return answer.configuration_index


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
