"""Real agents over veth: what the kernel counted is what the agents counted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from raft_agent.api import protocol
from raft_agent.kernel import libbpf
from tests.e2e.agents import Agent, wait_for
from tests.kernel import harness, netns
from tests.kernel.clusters import IsolatedCluster, ebpf, isolated_cluster, kernel
from tests.kernel.counting import gap, hold_counts, pipelined, wait_seen


@pytest.mark.parametrize("offloads", ["on", "off"])
def test_the_kernel_counts_what_the_agents_count(offloads: str) -> None:
    with isolated_cluster() as cluster:
        leader, follower = hold_counts(cluster, offloads)
        status = leader.status()
        assert status is not None
        entries = {one.name: one.sent.entries for one in kernel(leader).peers}[follower.name]
        assert entries >= 3000


def _lost_sync(agent: Agent, peer: str) -> int:
    found = {one.name: one for one in kernel(agent).peers}[peer]
    return found.received.lost_sync + found.sent.lost_sync


def test_with_loss_the_difference_is_declared() -> None:
    """What is dropped is sent again. Where the program could not follow, it says so."""
    with isolated_cluster(options=("--enable-fault-injection",)) as cluster:
        leader = cluster.leader()
        cluster.wait_attached()
        wait_seen(cluster, leader)
        follower = cluster.followers()[0]
        ends = [(leader, follower.name), (follower, leader.name)]
        gaps = [gap(*end) for end in ends]
        leader.ask(protocol.FaultSet(1, follower.name, 50, 300_000))
        pipelined(leader)
        leader.ask(protocol.FaultHeal(1))
        index = _commit_index(leader)
        cluster.wait_applied(index)
        assert "kernel_fault_hit" in [event.kind for event in leader.events()]
        for end, before in zip(ends, gaps, strict=True):
            frames_in, bytes_in, frames_out, bytes_out = gap(*end)
            assert (bytes_in, bytes_out) == (before[1], before[3])
            if not _lost_sync(*end):
                assert (frames_in, frames_out) == (before[0], before[2])
            assert frames_in <= before[0]  # never one too many
            assert frames_out >= before[2]


def _commit_index(agent: Agent) -> int:
    status = agent.status()
    assert status is not None
    return status.commit_index


def test_the_loops_lag_is_known_of_every_peer_that_says_something() -> None:
    with isolated_cluster() as cluster:
        leader = cluster.leader()
        cluster.wait_attached()
        wait_seen(cluster, leader)
        for agent in cluster.followers():
            assert 0 < _tail_us(agent, leader.name) < 60_000_000
            assert 0 < _tail_us(leader, agent.name) < 60_000_000


def _lag_counted(agent: Agent, peer: str) -> bool:
    return {one.name: one for one in kernel(agent).peers}[peer].loop_us is not None


def _tail_us(agent: Agent, peer: str) -> int:
    wait_for("a lag", lambda: _lag_counted(agent, peer) or None)
    times = {one.name: one for one in kernel(agent).peers}[peer].loop_us
    assert times is not None
    return times[1]


def _metrics(cluster: IsolatedCluster, agent: Agent) -> dict[str, float]:
    """The kernel part's samples, by name and labels as they stand on the page."""
    with netns.inside(cluster.namespaces[agent.name]):
        connection = HTTPConnection("127.0.0.1", 9555, timeout=20)
        connection.request("GET", "/metrics")
        page = connection.getresponse().read().decode()
        connection.close()
    lines = [line.rsplit(" ", 1) for line in page.splitlines() if line.startswith("raft_kernel")]
    return {name: float(value) for name, value in lines}


def test_the_metrics_go_on_when_a_peers_connections_come_and_go() -> None:
    address = {"RAFT_SERVER_HTTP_ADDR": "127.0.0.1:9555"}
    with isolated_cluster(environment=address) as cluster:
        leader = cluster.leader()
        cluster.wait_attached()
        wait_seen(cluster, leader)
        follower = cluster.followers()[0]
        name = f'direction="received",peer="{follower.name}"'
        sample = f"raft_kernel_packets_total{{{name}}}"

        def packets(more_than: float) -> float:
            def look() -> float | None:
                found = _metrics(cluster, leader).get(sample, 0)
                assert found >= before
                return found if found > more_than else None

            return wait_for(f"more packets than {more_than}", look)

        before = 0.0
        before = packets(20)
        follower.kill()
        before = packets(before - 1)
        follower.start()
        wait_for("the follower to follow", lambda: (follower.status() or None) and True)
        packets(before + 50)
        assert _metrics(cluster, leader)['raft_kernel_state{state="attached"}'] == 1


@pytest.fixture
def bpf_file_system() -> Iterator[Path]:
    """One of the test's own."""
    mount = Path(f"/run/rafttest-{os.getpid()}-bpf")
    mount.mkdir()
    harness.run("mount", "-t", "bpf", "-o", "mode=0755", "bpf", mount)
    yield mount
    harness.run("umount", mount)
    mount.rmdir()


def test_maps_are_pinned_for_others_while_the_agent_runs(bpf_file_system: Path) -> None:
    pins = bpf_file_system / "node-01"
    with isolated_cluster(1, ebpf=f'pin_dir = "{pins}"', interface="eth0") as cluster:
        cluster.wait_attached()
        assert libbpf.open_pinned(pins / "flows").name == "flows"
        assert cluster.agents["node-01"].stop() == 0
        # What is exported, and how fresh it is, outlives the agent.
        assert [path.name for path in pins.rglob("*")] == ["default", "raft_status_v1"]


_CAPABILITIES = "+bpf,+net_admin,+perfmon"
_NOBODY = 65_534
AS_NOBODY = [
    "setpriv",
    f"--reuid={_NOBODY}",
    f"--regid={_NOBODY}",
    "--clear-groups",
    f"--inh-caps={_CAPABILITIES}",
    f"--ambient-caps={_CAPABILITIES}",
    "--bounding-set=-all," + _CAPABILITIES,
    "--no-new-privs",
    "--",
]


@pytest.fixture
def pins_of_nobody(bpf_file_system: Path) -> Path:
    """A directory on a BPF file system that belongs to another user than root."""
    pins = bpf_file_system / "node-01"
    pins.mkdir(mode=0o750)
    os.chown(pins, _NOBODY, _NOBODY)
    return pins


def test_an_agent_of_another_user_needs_three_capabilities_and_no_more(
    pins_of_nobody: Path,
) -> None:
    with isolated_cluster(ebpf='firewall = "enforce"', wrapper=AS_NOBODY, start=False) as cluster:
        one = cluster.agents["node-01"]
        one.environment["RAFT_EBPF_PIN_DIR"] = str(pins_of_nobody)
        cluster.hand_over(_NOBODY)
        cluster.start()
        leader = cluster.leader()
        cluster.wait_attached()
        wait_seen(cluster, leader)
        assert Path(f"/proc/{one.pid}").stat().st_uid == _NOBODY
        assert libbpf.open_pinned(pins_of_nobody / "flows").name == "flows"
        for agent in cluster:
            found = ebpf(agent)
            assert found is not None
            assert found.firewall == "enforce"
        assert one.stop() == 0
        assert "raft" not in netns.tc(
            cluster.namespaces[one.name], "filter", "show", "dev", "eth0", "ingress"
        )
    # What is exported, and how fresh it is, outlives the agent; the rest is as it was prepared.
    (exported,) = pins_of_nobody.iterdir()
    assert [path.name for path in exported.iterdir()] == ["raft_status_v1"]


def test_a_place_for_pins_that_may_not_be_looked_at_costs_the_pins_alone(
    pins_of_nobody: Path,
) -> None:
    os.chown(pins_of_nobody, 0, 0)
    with isolated_cluster(1, wrapper=AS_NOBODY, start=False, interface="eth0") as cluster:
        (one,) = cluster
        one.environment["RAFT_EBPF_PIN_DIR"] = str(pins_of_nobody / "below")
        cluster.hand_over(_NOBODY)
        cluster.start()
        cluster.wait_attached()
        assert "maps are not pinned in" in one.log_text()
