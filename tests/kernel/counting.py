"""What the kernel counted held against what the agents counted, and work that gives them something
to count.
"""

from __future__ import annotations

from collections.abc import Callable

from raft_agent.api import protocol
from tests.e2e.agents import Agent, wait_for
from tests.e2e.load import Load
from tests.kernel import netns
from tests.kernel.clusters import IsolatedCluster, kernel

Gap = tuple[int, int, int, int]
_SAMPLES = 30


def gap(agent: Agent, peer: str) -> Gap:
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


def wait_seen(cluster: IsolatedCluster, leader: Agent) -> None:
    """Until the kernel has seen every connection at both ends."""

    def seen() -> bool | None:
        for agent in cluster:
            names = {one.name for one in kernel(agent).peers if sum(one.received.frames.values())}
            wanted = {a.name for a in cluster} - {agent.name} if agent is leader else {leader.name}
            if not wanted <= names:
                return None
        return True

    wait_for("the kernel to see all connections", seen)


def hold_counts(cluster: IsolatedCluster, offloads: str) -> tuple[Agent, Agent]:
    """Fails where kernel and agents count something differently at either end of a connection,
    after each kind of work, with the offloads "on" or "off". The leader and the follower."""
    for namespace in cluster.namespaces.values():
        netns.set_offloads(namespace, "eth0", offloads)
    leader = cluster.leader()
    cluster.wait_attached()
    wait_seen(cluster, leader)
    follower = cluster.followers()[0]
    gaps = (gap(leader, follower.name), gap(follower, leader.name))
    for name, work in WORK.items():
        work(leader)

        def agree() -> bool | None:
            # A follower whom no commit needed gets the last of it a moment later.
            found = (gap(leader, follower.name), gap(follower, leader.name))
            return True if found == gaps else None

        wait_for(f"kernel and agents to count the same after {name}", agree)
    return leader, follower


def _heartbeats(leader: Agent) -> None:
    before = {one.name: one.sent.frames.get("heartbeat", 0) for one in kernel(leader).peers}

    def more() -> bool | None:
        now = {one.name: one.sent.frames.get("heartbeat", 0) for one in kernel(leader).peers}
        return True if all(now[name] >= before[name] + 20 for name in before) else None

    wait_for("20 more heartbeats", more)


def pipelined(leader: Agent) -> None:
    """3,000 small writes of 64 clients."""
    Load(str(leader.socket_path), 64, "small").run_until(3000, lambda: None)


def _values(size: int, number: int) -> Callable[[Agent], None]:
    def put(leader: Agent) -> None:
        for n in range(number):
            leader.ask(protocol.Put(1, f"size-{size}-{n}", b"v" * size, -1), timeout_s=20)

    return put


WORK: dict[str, Callable[[Agent], None]] = {
    "heartbeats": _heartbeats,
    "pipelined small": pipelined,
    "4 KiB": _values(4096, 100),
    "64 KiB": _values(65_536, 50),
    "odd sizes": lambda leader: (
        [_values(size, 5)(leader) for size in (1, 47, 1401, 8191, 70_001)] and None
    ),
    "1 MiB": _values(1 << 20, 5),
}
