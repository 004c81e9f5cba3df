"""TLS inside frames: the kernel's program goes on seeing Raft, unless it is not to."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from raft_agent.api import protocol
from tests.e2e.agents import Agent, wait_for
from tests.kernel import netns
from tests.kernel.clusters import PORT, ebpf, isolated_cluster, kernel
from tests.kernel.counting import gap, hold_counts, pipelined, wait_seen
from tests.unit.tls.papers import Office, node

NAMES = ("node-01", "node-02", "node-03")


def certificates(directory: Path) -> str:
    """[tls] of raft.toml for the nodes NAME."""
    office = Office(directory)
    for name in NAMES:
        office.issue(node(name))
    return (
        f'[tls]\nca = "{office.ca}"\n'
        f'cert = "{directory}/NAME.pem"\nkey = "{directory}/NAME-key.pem"\n'
    )


@pytest.mark.parametrize("offloads", ["on", "off"])
def test_the_kernel_counts_what_the_agents_count_under_tls(offloads: str, tmp_path: Path) -> None:
    with isolated_cluster(tls=certificates(tmp_path)) as cluster:
        leader, follower = hold_counts(cluster, offloads)
        seen = {one.name: one for one in kernel(leader).peers}[follower.name]
        assert seen.sent.entries >= 3000
        assert seen.sent.lost_sync == seen.received.lost_sync == 0


def seen_of(agent: Agent, peer: str) -> protocol.KernelPeer:
    return {one.name: one for one in kernel(agent).peers}[peer]


def test_terms_and_round_trips_are_seen_under_tls(tmp_path: Path) -> None:
    with isolated_cluster(tls=certificates(tmp_path)) as cluster:
        leader = cluster.leader()
        cluster.wait_attached()
        wait_seen(cluster, leader)
        follower = cluster.followers()[0]
        pipelined(leader)
        wait_for("times", lambda: seen_of(leader, follower.name).wire_us)
        wait_for("the loop's lag", lambda: seen_of(follower, leader.name).loop_us)
        status = leader.status()
        assert status is not None
        assert seen_of(follower, leader.name).append_term == status.term


def test_hidden_headers_leave_packets_and_bytes_to_count(tmp_path: Path) -> None:
    hidden = certificates(tmp_path) + "clear_headers = false\n"
    with isolated_cluster(tls=hidden) as cluster:
        leader = cluster.leader()
        cluster.wait_attached()
        wait_seen(cluster, leader)
        follower = cluster.followers()[0]
        before = gap(leader, follower.name)
        pipelined(leader)
        assert gap(leader, follower.name) == before
        seen = seen_of(leader, follower.name)
        assert seen.sent.frames.keys() <= {"tls_frame", "tls_handshake"}
        assert seen.sent.entries == 0
        assert seen_of(follower, leader.name).append_term is None
        found = ebpf(leader)
        assert found is not None
        assert found.state == "attached"


def filter_of(agent: Agent) -> str:
    found = ebpf(agent)
    return "" if found is None else found.firewall


def test_strangers_are_kept_out_under_tls(tmp_path: Path) -> None:
    with isolated_cluster(
        tls=certificates(tmp_path), ebpf='firewall = "enforce"', guests=("stranger",)
    ) as cluster:
        cluster.leader()
        cluster.wait_attached()
        node = cluster.agents["node-01"]
        wait_for("the filter", lambda: filter_of(node) == "enforce" or None)
        with netns.inside(cluster.guests["stranger"]), pytest.raises(TimeoutError):
            socket.create_connection((cluster.addresses[node.name], PORT), timeout=1)
        assert kernel(node).strangers >= 1
