"""Three real agents, and what other programs find in each one's kernel."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from raft_agent.api import protocol
from raft_agent.api.client import RequestFailed
from raft_agent.kernel.export_layout import ExportState, NodeRole, Status
from raft_agent.kernel.reader import ExportedMap, StaleError
from raft_agent.kernel.typed_map import TypedMap
from raft_agent.platform import boot_time_ns
from tests.e2e.agents import Agent, LocalCluster, local_cluster, wait_for
from tests.kernel import harness
from tests.kernel.exporting import status_at

FRESH_MS = 1000
ADD = protocol.ExportAdd(1, "fw/deny/", "deny_v4", "lpm_trie", "ipv4_prefix", "u32", 5000)


class ExportCluster:
    """Agents with a BPF file system each."""

    def __init__(self, cluster: LocalCluster, mounts: Path) -> None:
        self.cluster = cluster
        self.pins = {agent.name: mounts / agent.name / "default" for agent in cluster}

    def leader(self) -> Agent:
        return self.cluster.leader()

    def write(self, request: protocol.Request) -> protocol.WriteResult:
        answer = self.leader().ask(request, 10.0)
        assert isinstance(answer, protocol.WriteResult)
        return answer

    def status(self, agent: Agent) -> Status:
        return status_at(self.pins[agent.name])

    def kernel(self, agent: Agent) -> dict[bytes, bytes]:
        opened = TypedMap.open(self.pins[agent.name] / "deny_v4_v1")
        try:
            return dict(item for piece in opened.scan() for item in piece)
        finally:
            opened.close()

    def wait_for_index(self, agent: Agent, index: int) -> None:
        def there() -> bool | None:
            try:
                status = self.status(agent)
            except FileNotFoundError:
                return None
            is_there = status.applied_index >= index and status.state == ExportState.READY
            return True if is_there else None

        wait_for(f"index {index} in the maps of {agent.name}", there)


@contextmanager
def export_cluster(tmp_path: Path, extra: str = "") -> Iterator[ExportCluster]:
    mounts = tmp_path / "bpf"
    mounts.mkdir()
    harness.run("mount", "-t", "bpf", "bpf", mounts)
    # A busy machine is to start no election.
    patient = "[timing]\nelection_timeout_min_ms = 1000\nelection_timeout_max_ms = 2000\n"
    settings = f'{patient}[ebpf]\nenabled = true\ninterface = "lo"\nfresh_ms = {FRESH_MS}\n{extra}'
    try:
        with local_cluster(
            3,
            extra=settings,
            wrapper=lambda name: ("env", f"RAFT_EBPF_PIN_DIR={mounts / name}"),
        ) as cluster:
            yield ExportCluster(cluster, mounts)
    finally:
        harness.run("umount", mounts)


@pytest.fixture
def exported(tmp_path: Path) -> Iterator[ExportCluster]:
    with export_cluster(tmp_path) as made:
        made.write(ADD)
        yield made


def put(prefix: str, value: int, number: int = 1) -> protocol.Put:
    return protocol.Put(number, f"fw/deny/{prefix}", b"%d" % value)


def deny_of(exported: ExportCluster, agent: Agent) -> ExportedMap:
    return ExportedMap(exported.pins[agent.name], "deny_v4", key="ipv4_prefix", value="u32")


def test_a_key_that_is_put_once_is_in_every_kernel(exported: ExportCluster) -> None:
    done = exported.write(put("203.0.113.0/24", 7))
    for agent in exported.cluster:
        exported.wait_for_index(agent, done.index)
        with deny_of(exported, agent) as deny:
            assert deny.get("203.0.113.9/32", at_index=done.index) == 7
    gone = exported.write(protocol.Delete(2, "fw/deny/203.0.113.0/24"))
    for agent in exported.cluster:
        exported.wait_for_index(agent, gone.index)
        assert exported.kernel(agent) == {}


def test_the_status_says_who_leads_and_that_the_copy_is_fresh(exported: ExportCluster) -> None:
    leader = exported.leader()
    for agent in exported.cluster:

        def is_fresh(agent: Agent = agent) -> Status | None:
            status = exported.status(agent)
            return status if boot_time_ns() < status.fresh_until_ns else None

        status = wait_for(f"a fresh copy at {agent.name}", is_fresh)
        wanted = NodeRole.LEADER if agent is leader else NodeRole.FOLLOWER
        assert status.role == wanted
        assert status.state == ExportState.READY


def test_maps_at_one_index_are_equal_after_kills_pauses_and_snapshots(tmp_path: Path) -> None:
    dice = random.Random(7)
    with export_cluster(tmp_path, "[storage]\nsnapshot_entries = 300\n") as exported:
        exported.write(ADD)
        agents = list(exported.cluster)
        index = 0
        for turn in range(6):
            leader = exported.leader()
            victim = next(agent for agent in agents if agent is not leader)
            if turn % 2:
                victim.kill()
            else:
                victim.signal(signal.SIGSTOP)
            requests = []
            for number in range(1, 200):
                key = f"fw/deny/10.{dice.randrange(60)}.0.0/16"
                if dice.random() < 0.3:
                    requests.append(protocol.Delete(number, key))
                else:
                    requests.append(protocol.Put(number, key, b"%d" % dice.randrange(1000)))
            for request in requests:
                answer = leader.ask(request, 10.0)
                assert isinstance(answer, protocol.WriteResult)
                index = answer.index
            if turn % 2:
                victim.start()
            else:
                victim.signal(signal.SIGCONT)
        for agent in agents:
            exported.wait_for_index(agent, index)
        kernels = [exported.kernel(agent) for agent in agents]
        assert kernels[0] == kernels[1] == kernels[2]
        listed = exported.leader().ask(protocol.List(1, "fw/deny/"))
        assert isinstance(listed, protocol.ListResult)
        with deny_of(exported, agents[0]) as deny:
            assert len(kernels[0]) == len(listed.keys)
            for entry in listed.keys:
                found = deny.get(entry.key.removeprefix("fw/deny/"))
                assert found == int(entry.value)


def test_readers_go_on_while_the_agent_stands_still_and_know_when_the_copy_is_old(
    exported: ExportCluster,
) -> None:
    done = exported.write(put("203.0.113.0/24", 7))
    follower = next(agent for agent in exported.cluster if agent is not exported.leader())
    exported.wait_for_index(follower, done.index)
    follower.signal(signal.SIGSTOP)
    try:
        with deny_of(exported, follower) as deny:
            until_ns = deny.status().fresh_until_ns
            assert until_ns < boot_time_ns() + FRESH_MS * 1_000_000
            while boot_time_ns() < until_ns:
                assert deny.get("203.0.113.9/32") == 7
                time.sleep(0.05)
            assert deny.get("203.0.113.9/32") == 7
            with pytest.raises(StaleError):
                deny.get("203.0.113.9/32", fresh=True)
    finally:
        follower.signal(signal.SIGCONT)


def test_what_does_not_fit_is_refused_and_named(exported: ExportCluster) -> None:
    for bad, says in (
        (protocol.Put(1, "fw/deny/203.0.113.5/24", b"1"), "has to be written as 203.0.113.0/24"),
        (protocol.Put(1, "fw/deny/203.0.113.0/24", b"x"), "deny_v4"),
    ):
        with pytest.raises(RequestFailed, match=says):
            exported.write(bad)


def test_the_agent_tells_what_its_kernel_has(exported: ExportCluster) -> None:
    done = exported.write(put("203.0.113.0/24", 7))
    follower = next(agent for agent in exported.cluster if agent is not exported.leader())
    exported.wait_for_index(follower, done.index)
    listed = follower.ask(protocol.ExportList(1))
    assert isinstance(listed, protocol.ExportListResult)
    assert listed.state == "ready"
    (info,) = listed.exports
    assert (info.map, info.entries, info.version) == ("deny_v4", 1, 1)
    assert Path(info.path).exists()
    dumped = follower.ask(protocol.ExportDump(2, "deny_v4"))
    assert isinstance(dumped, protocol.ExportDumpResult)
    assert dumped.entries == [protocol.ExportEntry("fw/deny/203.0.113.0/24", b"7")]


def test_an_agent_that_starts_alone_leaves_the_maps_as_they_were(exported: ExportCluster) -> None:
    """Its log tells it nothing until it has heard a leader, and the maps are ahead of it."""
    done = exported.write(put("203.0.113.0/24", 7))
    agents = list(exported.cluster)
    for agent in agents:
        exported.wait_for_index(agent, done.index)
    before = [exported.kernel(agent) for agent in agents]
    for agent in agents:
        agent.kill()
    alone = agents[0]
    alone.start()

    def has_begun() -> bool | None:
        return True if exported.status(alone).role == NodeRole.NONE else None

    wait_for("the agent to look at its maps", has_begun)
    wait_for("it to serve", alone.status)
    listed = alone.ask(protocol.ExportList(1))
    assert isinstance(listed, protocol.ExportListResult)
    assert listed.state == "filling"
    assert exported.kernel(alone) == before[0]
    assert exported.status(alone).applied_index >= done.index
    for agent in agents[1:]:
        agent.start()
    again = exported.write(protocol.Put(9, "fw/deny/10.0.0.0/8", b"1"))
    for agent in agents:
        exported.wait_for_index(agent, again.index)
        with deny_of(exported, agent) as deny:
            assert deny.get("203.0.113.9/32") == 7
            assert deny.get("10.1.1.1/32") == 1


def test_a_map_that_is_added_while_others_are_read_keeps_them_fresh(
    exported: ExportCluster,
) -> None:
    follower = next(agent for agent in exported.cluster if agent is not exported.leader())
    opened = exported.pins[follower.name] / "deny_v4_v1"
    wait_for("the map to be pinned", lambda: opened.exists() or None)
    before = TypedMap.open(opened)
    exported.write(protocol.Put(1, "ports/80", b"7"))
    exported.write(protocol.ExportAdd(2, "ports/", "ports", "hash", "u32", "u32", 10))
    exported.write(put("203.0.113.0/24", 1, 3))
    gone = exported.write(protocol.ExportRemove(4, "ports"))
    exported.wait_for_index(follower, gone.index)
    after = TypedMap.open(opened)
    assert before.map_id == after.map_id
    assert len(dict(before.items())) == 1
    before.close()
    after.close()
    assert not opened.with_name("ports_v1").exists()


def test_maps_of_the_file_are_exported_once_and_stay_as_somebody_changed_them(
    tmp_path: Path,
) -> None:
    seed = '[[ebpf.export]]\nprefix = "{}"\nmap = "{}"\nkey = "u32"\nvalue = "u32"\n'
    seeds = seed.format("ports/", "ports") + seed.format("limits/", "limits")
    with export_cluster(tmp_path, seeds) as exported:

        def listed() -> list[str] | None:
            answer = exported.leader().ask(protocol.ExportList(1))
            assert isinstance(answer, protocol.ExportListResult)
            return [info.map for info in answer.exports] or None

        def has_both() -> bool | None:
            return True if listed() == ["ports", "limits"] else None

        wait_for("both maps of the file", has_both)
        done = exported.write(protocol.ExportRemove(1, "ports"))
        leader = exported.leader()
        leader.kill()
        leader.start()
        again = exported.write(protocol.Put(2, "limits/7", b"9"))
        assert again.index > done.index
        for agent in exported.cluster:
            exported.wait_for_index(agent, again.index)
            assert (exported.pins[agent.name] / "limits_v1").exists()
            assert not (exported.pins[agent.name] / "ports_v1").exists()
        assert listed() == ["limits"]


def test_a_map_of_the_file_that_keys_do_not_fit_is_told(tmp_path: Path) -> None:
    with export_cluster(tmp_path) as exported:
        exported.write(protocol.Put(1, "ports/http", b"80"))
        seed = '[[ebpf.export]]\nprefix = "ports/"\nmap = "ports"\nkey = "u32"\nvalue = "u32"\n'
        for agent in exported.cluster:
            agent.stop()
            with (agent.directory / "raft.toml").open("a") as file:
                file.write(seed)
        for agent in exported.cluster:
            agent.start()

        def refused() -> str | None:
            events = exported.leader().events()
            found = [item.text for item in events if item.kind == "export_refused"]
            return found[0] if found else None

        text = wait_for("the refusal to be told", refused)
        assert '"ports/http" does not fit' in text
