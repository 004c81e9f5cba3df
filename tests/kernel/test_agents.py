"""Real agents over veth: what the kernel counted is what the agents counted."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from raft_agent.api import protocol
from raft_agent.kernel import libbpf
from tests.e2e.agents import Agent, wait_for
from tests.e2e.load import Load
from tests.kernel import netns
from tests.kernel.clusters import IsolatedCluster, isolated_cluster, kernel

Gap = tuple[int, int, int, int]
_SAMPLES = 30


def _gap(agent: Agent, peer: str) -> Gap:
    """What kernel and agent counted differently: frames and bytes in, frames and bytes out.

    A frame that came is counted by the kernel first and by the agent a moment later; one that is
    sent the other way round. So with nothing on the way the differences are the smallest.
    """
    gaps = []
    for _ in range(_SAMPLES):
        found = {one.name: one for one in kernel(agent).peers}[peer]
        come, gone = found.received, found.sent
        gaps.append(
            (
                sum(come.frames.values()) - come.agent_frames,
                come.stream_bytes - come.agent_bytes,
                gone.agent_frames - sum(gone.frames.values()),
                gone.agent_bytes - gone.stream_bytes,
            )
        )
    return tuple(map(min, zip(*gaps, strict=True)))  # type: ignore[return-value]


def _wait_seen(cluster: IsolatedCluster, leader: Agent) -> None:
    """Until the kernel has seen every connection at both ends."""

    def seen() -> bool | None:
        for agent in cluster:
            names = {one.name for one in kernel(agent).peers if sum(one.received.frames.values())}
            wanted = {a.name for a in cluster} - {agent.name} if agent is leader else {leader.name}
            if not wanted <= names:
                return None
        return True

    wait_for("the kernel to see all connections", seen)


def _heartbeats(leader: Agent) -> None:
    before = {one.name: one.sent.frames.get("heartbeat", 0) for one in kernel(leader).peers}

    def more() -> bool | None:
        now = {one.name: one.sent.frames.get("heartbeat", 0) for one in kernel(leader).peers}
        return True if all(now[name] >= before[name] + 20 for name in before) else None

    wait_for("20 more heartbeats", more)


def _pipelined(leader: Agent) -> None:
    Load(str(leader.socket_path), 64, "small").run_until(3000, lambda: None)


def _values(size: int, number: int) -> Callable[[Agent], None]:
    def put(leader: Agent) -> None:
        for n in range(number):
            leader.ask(protocol.Put(1, f"size-{size}-{n}", b"v" * size, -1), timeout_s=20)

    return put


WORK: dict[str, Callable[[Agent], None]] = {
    "heartbeats": _heartbeats,
    "pipelined small": _pipelined,
    "4 KiB": _values(4096, 100),
    "64 KiB": _values(65_536, 50),
    "odd sizes": lambda leader: (
        [_values(size, 5)(leader) for size in (1, 47, 1401, 8191, 70_001)] and None
    ),
    "1 MiB": _values(1 << 20, 5),
}


@pytest.mark.parametrize("offloads", ["on", "off"])
def test_the_kernel_counts_what_the_agents_count(offloads: str) -> None:
    with isolated_cluster() as cluster:
        for namespace in cluster.namespaces.values():
            netns.set_offloads(namespace, "eth0", offloads)
        leader = cluster.leader()
        cluster.wait_attached()
        _wait_seen(cluster, leader)
        follower = cluster.followers()[0]
        gaps = (_gap(leader, follower.name), _gap(follower, leader.name))
        for name, work in WORK.items():
            work(leader)
            found = (_gap(leader, follower.name), _gap(follower, leader.name))
            assert found == gaps, name
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
        _wait_seen(cluster, leader)
        follower = cluster.followers()[0]
        ends = [(leader, follower.name), (follower, leader.name)]
        gaps = [_gap(*end) for end in ends]
        leader.ask(protocol.FaultSet(1, follower.name, 50, 300_000))
        _pipelined(leader)
        leader.ask(protocol.FaultHeal(1))
        index = _commit_index(leader)
        cluster.wait_applied(index)
        assert "kernel_fault_hit" in [event.kind for event in leader.events()]
        for end, before in zip(ends, gaps, strict=True):
            frames_in, bytes_in, frames_out, bytes_out = _gap(*end)
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
        _wait_seen(cluster, leader)
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


def test_maps_are_pinned_for_others_while_the_agent_runs() -> None:
    pins = Path(f"/sys/fs/bpf/rafttest-{os.getpid()}")
    if not os.path.ismount("/sys/fs/bpf"):
        pytest.skip("no BPF file system is mounted at /sys/fs/bpf")
    with isolated_cluster(1, ebpf=f'pin_dir = "{pins}"', interface="eth0") as cluster:
        cluster.wait_attached()
        assert libbpf.open_pinned(pins / "flows").name == "flows"
        assert cluster.agents["node-01"].stop() == 0
        assert not pins.exists()
