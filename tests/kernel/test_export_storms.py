"""Exported maps of three nodes in namespaces, for long and under everything that can happen."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from raft_agent.api import protocol
from raft_agent.api.client import Client
from raft_agent.kernel.export_layout import ExportState
from raft_agent.platform import boot_time_ns
from tests.e2e.agents import Agent, wait_for
from tests.kernel import harness, netns
from tests.kernel.clusters import PATIENT, IsolatedCluster, isolated_cluster
from tests.kernel.pinned import Checker, Maps

pytestmark = pytest.mark.long

FRESH_NS = 1_000_000_000
TIMES = 50
WRITES, TOGETHER = 10_000, 250


class Cluster:
    """`maps` by name, opened once all are there."""

    def __init__(self, agents: IsolatedCluster, mounts: Path) -> None:
        self.agents = agents
        add = protocol.ExportAdd(1, "fw/deny/", "deny_v4", "lpm_trie", "ipv4_prefix", "u32", 5000)
        agents.leader().ask(add, 10.0)
        places = {agent.name: mounts / agent.name / "default" for agent in agents}
        for place in places.values():
            wait_for("the map", lambda place=place: (place / "deny_v4_v1").exists() or None)
        self.maps = {name: Maps(place) for name, place in places.items()}

    def set_link(self, agent: Agent, up_or_down: str) -> None:
        netns.ip("-n", self.agents.hub, "link", "set", agent.name, up_or_down)

    def wait_fresh(self, agent: Agent) -> Maps:
        maps = self.maps[agent.name]
        wait_for(f"a fresh copy at {agent.name}", lambda: maps.is_fresh() or None)
        return maps


@contextmanager
def storm_cluster(tmp_path: Path, extra: str = "") -> Iterator[Cluster]:
    mounts = tmp_path / "bpf"
    mounts.mkdir()
    harness.run("mount", "-t", "bpf", "bpf", mounts)
    try:
        with isolated_cluster(
            ebpf=f"fresh_ms = {FRESH_NS // 1_000_000}\n{extra}", timing=PATIENT, start=False
        ) as agents:
            for agent in agents:
                agent.environment["RAFT_EBPF_PIN_DIR"] = str(mounts / agent.name)
            agents.start()
            cluster = Cluster(agents, mounts)
            try:
                yield cluster
            finally:
                for maps in cluster.maps.values():
                    maps.close()
    finally:
        harness.run("umount", mounts)


def never_fresh_until(maps: Maps, end_ns: int) -> bool:
    while boot_time_ns() < end_ns:
        if maps.is_fresh():
            return False
        time.sleep(0.001)
    return True


def test_a_copy_is_not_fresh_any_more_when_the_bound_has_passed_since_it_was_cut_off(
    tmp_path: Path,
) -> None:
    with storm_cluster(tmp_path) as cluster:
        late = []
        for _ in range(TIMES):
            victim = cluster.agents.followers()[0]
            maps = cluster.wait_fresh(victim)
            cluster.set_link(victim, "down")
            cut_off_ns = boot_time_ns()
            while boot_time_ns() < cut_off_ns + FRESH_NS:
                time.sleep(0.005)
            if not never_fresh_until(maps, cut_off_ns + FRESH_NS + 200_000_000):
                late.append(maps.status())
            cluster.set_link(victim, "up")
        assert late == []


def test_one_that_stood_still_while_it_was_cut_off_never_calls_itself_fresh(
    tmp_path: Path,
) -> None:
    """What lay in its sockets is old, however new it looks to it."""
    with storm_cluster(tmp_path) as cluster:
        wrong = []
        for _ in range(TIMES):
            victim = cluster.agents.followers()[0]
            maps = cluster.wait_fresh(victim)
            victim.signal(signal.SIGSTOP)
            # Words of the leader come in, which it reads when it goes on.
            time.sleep(0.3)
            cluster.set_link(victim, "down")
            time.sleep(1.7)
            victim.signal(signal.SIGCONT)
            if not never_fresh_until(maps, boot_time_ns() + 500_000_000):
                wrong.append(maps.status())
            cluster.set_link(victim, "up")
        assert wrong == []


async def write_some(cluster: Cluster, dice: random.Random) -> int:
    """The index behind all of them."""
    sockets = {agent.name: agent.socket_path for agent in cluster.agents}
    async with Client(sockets, timeout_s=30.0) as client:

        async def one() -> int:
            key = f"fw/deny/10.{dice.randrange(200)}.0.0/16"
            if dice.random() < 0.3:
                return (await client.delete(key)).index
            return (await client.put(key, b"%d" % dice.randrange(1000))).index

        return max(await asyncio.gather(*[one() for _ in range(TOGETHER)]))


def calamities(cluster: Cluster) -> list[Callable[[Agent], Callable[[], None]]]:
    """Each does something to an agent, and gives how to undo it."""

    def kill(agent: Agent) -> Callable[[], None]:
        agent.kill()
        return agent.start

    def stop(agent: Agent) -> Callable[[], None]:
        agent.signal(signal.SIGSTOP)
        return lambda: agent.signal(signal.SIGCONT)

    def cut_off(agent: Agent) -> Callable[[], None]:
        cluster.set_link(agent, "down")
        return lambda: cluster.set_link(agent, "up")

    return [kill, stop, cut_off]


def test_maps_are_a_prefix_of_one_order_whatever_happens(tmp_path: Path) -> None:
    dice = random.Random(11)
    index = 0
    with (
        storm_cluster(tmp_path, "[storage]\nsnapshot_entries = 400\n") as cluster,
        Checker(cluster.maps) as checker,
    ):
        chosen = calamities(cluster)
        for _ in range(WRITES // TOGETHER):
            # Whoever leads as well as any other.
            victim = dice.choice(list(cluster.agents))
            undo = dice.choice(chosen)(victim)
            index = asyncio.run(write_some(cluster, dice))
            undo()
            cluster.agents.leader()
        for name, maps in cluster.maps.items():

            def is_there(maps: Maps = maps) -> bool | None:
                status = maps.status()
                return (status.applied_index >= index and status.state == ExportState.READY) or None

            wait_for(f"index {index} in the maps of {name}", is_there, 60.0)
        listed = cluster.agents.leader().ask(protocol.List(1, "fw/deny/"))
        assert isinstance(listed, protocol.ListResult)
        wanted = {entry.key.split(".")[1]: int(entry.value) for entry in listed.keys}
        for maps in cluster.maps.values():
            found = {
                str(key[5]): int.from_bytes(value, "little")
                for key, value in maps.entries().items()
            }
            assert found == wanted
    assert checker.problems == []
    assert checker.compared > 100
