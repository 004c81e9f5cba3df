"""Clusters whose members run raft-agents of two versions."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from raft_agent.api import protocol
from raft_agent.api.client import RequestFailed
from raft_agent.storage.format import encode_promise
from tests import version2
from tests.e2e.agents import Agent, LocalCluster, local_cluster, wait_for
from tests.e2e.test_growing import check_nothing_lost, join, raftctl
from tests.e2e.writers import Writers
from tests.golden.make import CLUSTER_ID, DATA
from tests.golden.make import VERSION_1 as GOLDEN

VERSION_1 = ("-m", "raft_agent.main")
VERSION_2 = (str(Path(version2.__file__)),)
VERSION_1_DATA = GOLDEN / DATA
ONLY_IN_2 = "2/key"


def restart(cluster: LocalCluster, agent: Agent, program: tuple[str, ...]) -> None:
    """End an agent as its service does, and start another program on its data; back when it is as
    far as the leader is."""
    agent.stop()
    agent.program = program
    agent.start()
    wait_for(f"{agent.name} to answer", agent.status)
    leader = cluster.leader().status()
    assert leader is not None
    cluster.wait_applied(leader.last_applied)


def versions_in_force(cluster: LocalCluster) -> set[int]:
    statuses = [agent.status() for agent in cluster if agent.process is not None]
    return {status.cluster_version for status in statuses if status is not None}


def put_of_version_2(agent: Agent) -> None:
    agent.ask(protocol.Put(1, ONLY_IN_2, b"v", forward=True), timeout_s=5)


def contents(directory: Path) -> dict[str, str]:
    """What every file holds; the lock has the number of the last process that tried."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


def refused_start(agent: Agent) -> str:
    """Start an agent that must end by itself; what it said."""
    before = len(agent.log_text()) if agent.log_path.exists() else 0
    agent.start()
    assert agent.process is not None
    assert agent.process.wait(20) == 1
    agent.process = None
    return agent.log_text()[before:]


@pytest.mark.long
def test_a_rolling_upgrade_under_load_loses_nothing_and_raises_the_version_at_its_end() -> None:
    with local_cluster(4, lone="node-01") as cluster:
        members = [cluster.agents[f"node-0{number}"] for number in (1, 2, 3)]
        wait_for("node-01 to lead", lambda: members[0].status() and members[0].status().leader)
        for name in ("node-02", "node-03"):
            join(cluster, members[0], name)
        sockets = {agent.name: agent.socket_path for agent in members}
        writers = Writers(sockets, clients=16)
        with writers.writing():
            first, second, last = members
            restart(cluster, first, VERSION_2)
            restart(cluster, first, VERSION_1)
            restart(cluster, first, VERSION_2)
            restart(cluster, second, VERSION_2)
            assert versions_in_force(cluster) == {1}
            raftctl(first, "--forward", "leader", "transfer", "node-01")
            with pytest.raises(RequestFailed) as caught:
                put_of_version_2(first)
            assert caught.value.code == protocol.ErrorCode.NOT_IN_THIS_VERSION
            assert "node-03" in str(caught.value)
            assert not (first.data_dir / "version").exists()
            restart(cluster, last, VERSION_2)
            wait_for(
                "version 2 to be in force everywhere",
                lambda: versions_in_force(cluster) == {2} or None,
            )
            put_of_version_2(second)
        check_nothing_lost(last, writers)
        assert not writers.errors
        print(f"{len(writers.acks)} writes; longest gap {writers.longest_gap_s():.3f} s")
        _too_old(cluster, members)


def _too_old(cluster: LocalCluster, members: list[Agent]) -> None:
    """Once version 2 is in force, no program that does not know it can be a member."""
    first, second, _ = members
    assert {item["knows"][1] for item in raftctl(second, "member", "list")["members"]} == {2}
    first.stop()
    first.program = VERSION_1
    before = contents(first.data_dir)
    said = refused_start(first)
    assert "of version 2, and raft-agent" in said
    assert "knows version 1" in said
    assert "Install a raft-agent that knows version 2" in said
    assert contents(first.data_dir) == before
    # A copy of older data has no promise in it; it comes up, and hears or reads that it is too old.
    (first.data_dir / "version").unlink()
    said = refused_start(first)
    assert "the agent ends: " in said
    assert "Install" in said.rpartition("the agent ends: ")[2]
    assert "Traceback" not in said
    first.program = VERSION_2
    first.start()
    assert cluster.leader().name in cluster.agents
    fresh = cluster.agents["node-04"]
    fresh.start()
    wait_for("node-04 to answer", fresh.status)
    refused = raftctl(second, "join", "node-04", fresh.address, status=1)
    assert "knows version 1, and this cluster needs version 2" in refused["error"]
    fresh.stop()
    fresh.program = VERSION_2
    fresh.start()
    wait_for("node-04 to answer", fresh.status)
    raftctl(second, "join", "node-04", fresh.address)
    answer = fresh.ask(protocol.Get(1, ONLY_IN_2), timeout_s=5)
    assert isinstance(answer, protocol.KeyValue)
    assert answer.value == b"v"
    assert (fresh.data_dir / "version").exists()


def test_an_agent_goes_on_from_a_data_directory_that_version_1_wrote() -> None:
    with local_cluster(1, start=False) as cluster:
        (agent,) = cluster
        shutil.copytree(VERSION_1_DATA, agent.data_dir)
        agent.start()
        assert cluster.leader() is agent
        status = agent.status()
        assert status is not None
        assert (status.cluster_id, status.cluster_version) == (CLUSTER_ID, 1)
        answer = agent.ask(protocol.Get(1, "a"))
        assert isinstance(answer, protocol.KeyValue)
        assert (answer.value, answer.revision) == (b"1", 1)
        messages = agent.ask(protocol.Messages(1, 10))
        assert isinstance(messages, protocol.MessagesResult)
        assert [message.text for message in messages.messages] == ["before the snapshot", "hello"]
        agent.ask(protocol.Put(1, "written", b"now"))
        assert agent.stop() == 0
        agent.start()
        assert cluster.leader() is agent


def test_an_agent_does_not_start_on_what_a_later_one_wrote() -> None:
    with local_cluster(1, start=False) as cluster:
        (agent,) = cluster
        shutil.copytree(VERSION_1_DATA, agent.data_dir)
        (agent.data_dir / "version").write_bytes(encode_promise(2))
        before = contents(agent.data_dir)
        said = refused_start(agent)
        assert "what it holds is of version 2, and raft-agent" in said
        assert "Traceback" not in said
        assert contents(agent.data_dir) == before
