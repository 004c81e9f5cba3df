"""Packets that are lost on purpose: only where that was asked for, and never for long."""

from __future__ import annotations

import pytest

from raft_agent.api import protocol
from raft_agent.api.client import RequestFailed
from tests.e2e.agents import Agent, wait_for
from tests.kernel.clusters import ebpf, isolated_cluster

OPTIONS = ("--enable-fault-injection",)
MINUTE_MS = 60_000


def _faults(agent: Agent) -> list[tuple[str, str, int]]:
    found = ebpf(agent)
    assert found is not None
    return sorted((fault.peer, fault.direction, fault.per_mille) for fault in found.faults)


def test_an_agent_that_was_not_started_for_it_refuses() -> None:
    with isolated_cluster() as cluster:
        leader = cluster.leader()
        cluster.wait_attached()
        with pytest.raises(RequestFailed, match="not started for tests with faults"):
            leader.ask(protocol.FaultSet(1, "node-02", 1000, MINUTE_MS))


def test_faults_are_shown_and_healed_by_name_though_the_peer_is_cut_off() -> None:
    with isolated_cluster(options=OPTIONS) as cluster:
        leader = cluster.leader()
        cluster.wait_attached()
        first, second = (agent.name for agent in cluster if agent is not leader)
        leader.ask(protocol.FaultSet(1, first, 1000, MINUTE_MS))
        leader.ask(protocol.FaultSet(1, second, 1, MINUTE_MS, protocol.FaultDirection.OUT))
        assert _faults(leader) == sorted(
            [(first, "in", 1000), (first, "out", 1000), (second, "out", 1)]
        )

        def is_cut_off() -> bool | None:
            health = leader.ask(protocol.Health(1, False))
            assert isinstance(health, protocol.HealthResult)
            states = {member.name: member.state for member in health.members}
            return True if states[first] == "unreachable" else None

        wait_for("the peer to be cut off", is_cut_off)
        leader.ask(protocol.FaultHeal(1, first))
        assert _faults(leader) == [(second, "out", 1)]
        leader.ask(protocol.FaultHeal(1))
        assert _faults(leader) == []
        wait_for("it to be back", lambda: None if is_cut_off() else True)


def test_a_fault_ends_by_itself() -> None:
    with isolated_cluster(options=OPTIONS) as cluster:
        leader = cluster.leader()
        cluster.wait_attached()
        peer = cluster.followers()[0].name
        leader.ask(protocol.FaultSet(1, peer, 100, 500))
        assert _faults(leader)
        wait_for("its end", lambda: None if _faults(leader) else True)


def test_a_leader_that_is_cut_off_is_replaced_and_follows_when_that_ends() -> None:
    with isolated_cluster(options=OPTIONS) as cluster:
        old = cluster.leader()
        cluster.wait_attached()
        others = [agent for agent in cluster if agent is not old]
        for agent in others:
            old.ask(protocol.FaultSet(1, agent.name, 1000, MINUTE_MS))

        def new_leader() -> str | None:
            status = others[0].status()
            return status.leader if status and status.leader not in (None, old.name) else None

        wait_for("another leader", new_leader)
        old.ask(protocol.FaultHeal(1))
        assert cluster.leader() is not old


def test_an_unknown_peer_is_refused() -> None:
    with isolated_cluster(options=OPTIONS) as cluster:
        leader = cluster.leader()
        cluster.wait_attached()
        with pytest.raises(RequestFailed, match="No other member is called node-99"):
            leader.ask(protocol.FaultSet(1, "node-99", 1000, MINUTE_MS))
