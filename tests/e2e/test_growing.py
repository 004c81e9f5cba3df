"""A cluster that grows and shrinks while clients write."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from raft_agent.api import protocol
from tests.e2e.agents import Agent, LocalCluster, local_cluster, wait_for
from tests.e2e.writers import Writers

NAMES = [f"node-{number:02}" for number in range(1, 6)]


def raftctl(agent: Agent, *arguments: str, status: int = 0) -> Any:
    """The JSON that raftctl prints when it asks `agent`."""
    command = [sys.executable, "-m", "raftctl.main", "--socket", str(agent.socket_path)]
    done = subprocess.run(
        [*command, "--timeout", "20", "-o", "json", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return json.loads(done.stdout)


def voters(agent: Agent) -> list[str]:
    members = raftctl(agent, "member", "list")["members"]
    return sorted(item["name"] for item in members if item["role"] == "voter")


def join(cluster: LocalCluster, via: Agent, name: str) -> None:
    """Start a fresh agent and have it joined; back when it is a voter."""
    agent = cluster.agents[name]
    agent.start()
    wait_for(f"{name} to answer", agent.status)
    raftctl(via, "join", name, agent.address)
    assert name in voters(via)


def leave(cluster: LocalCluster, via: Agent, name: str) -> None:
    """Remove a live member; it learns of it, and is quiet."""
    raftctl(via, "leave", name)
    assert name not in voters(via)
    agent = cluster.agents[name]

    def knows() -> bool | None:
        status = agent.status()
        return True if status is not None and status.removed else None

    wait_for(f"{name} to know that it was removed", knows)
    term = agent.status().term  # type: ignore[union-attr]
    agent.kill()
    shutil.rmtree(agent.data_dir)
    assert via.status().term <= term + 1  # type: ignore[union-attr]


def check_nothing_lost(agent: Agent, writers: Writers) -> None:
    found: set[str] = set()
    after = ""
    while True:
        answer = agent.ask(protocol.List(1, "w", 5000, after), timeout_s=20)
        assert isinstance(answer, protocol.ListResult)
        found.update(entry.key for entry in answer.keys)
        if not answer.more:
            break
        after = answer.keys[-1].key
    lost = [key for _, key in writers.acks if key not in found]
    assert not lost, f"{len(lost)} acknowledged writes are gone, {lost[0]} among them"


@pytest.mark.long
def test_a_cluster_grows_to_five_and_shrinks_to_one_while_32_clients_write() -> None:
    with local_cluster(5, lone="node-01") as cluster:
        first = cluster.agents["node-01"]
        wait_for("node-01 to lead", lambda: first.status() and first.status().leader)
        sockets = {name: agent.socket_path for name, agent in cluster.agents.items()}
        writers = Writers(sockets, clients=32)
        with writers.writing():
            for name in NAMES[1:]:
                join(cluster, first, name)
            assert voters(first) == NAMES
            raftctl(first, "--forward", "leader", "transfer", "node-05")
            for name in reversed(NAMES[1:]):
                leave(cluster, first, name)
            assert voters(first) == ["node-01"]
            for name in NAMES[1:3]:
                join(cluster, first, name)
        assert voters(first) == NAMES[:3]
        check_nothing_lost(first, writers)
        print(
            f"{len(writers.acks)} writes while the cluster grew to 5, shrank to 1 and grew to 3; "
            f"longest gap {writers.longest_gap_s():.3f} s"
        )
        assert not writers.errors
        assert writers.longest_gap_s() < 1.0


def test_a_joined_member_serves_and_a_removed_one_says_so() -> None:
    with local_cluster(3, lone="node-01") as cluster:
        first = cluster.agents["node-01"]
        wait_for("node-01 to lead", lambda: first.status() and first.status().leader)
        raftctl(first, "propose", "put", "k", "v")
        join(cluster, first, "node-02")
        join(cluster, cluster.agents["node-02"], "node-03")
        third = cluster.agents["node-03"]
        assert raftctl(third, "propose", "get", "k")["value"] == "v"
        again = raftctl(third, "join", "node-02", cluster.agents["node-02"].address)
        assert "already" in again["note"]
        leave(cluster, first, "node-02")
        assert voters(third) == ["node-01", "node-03"]
        nobody = raftctl(first, "join", "node-09", "127.0.0.1:1", status=1)
        assert "127.0.0.1:1" in nobody["error"]
        assert voters(first) == ["node-01", "node-03"]


def test_a_node_with_the_token_is_added_when_it_asks_and_one_without_is_not(
    tmp_path: Path,
) -> None:
    token = '[cluster]\ntoken = "of this test alone"\n'
    with local_cluster(2, lone="node-01", extra=token) as cluster:
        first, second = cluster.agents["node-01"], cluster.agents["node-02"]
        wait_for("node-01 to lead", lambda: first.status() and first.status().leader)
        second.environment["RAFT_CLUSTER_JOIN"] = first.address
        second.environment["RAFT_CLUSTER_TOKEN"] = "another than the others have"
        second.start()
        wait_for("it to be told why not", lambda: _heard_refusal(second))
        assert voters(first) == ["node-01"]
        waiting = second.status()
        assert waiting is not None
        assert waiting.note.endswith("what they answer: raftctl events")
        second.kill()
        del second.environment["RAFT_CLUSTER_TOKEN"]
        second.start()
        wait_for("it to be a voter", lambda: voters(first) == NAMES[:2] or None)


def _heard_refusal(agent: Agent) -> bool | None:
    try:
        return any(event.kind == "join_refused" for event in agent.events()) or None
    except Exception:
        return None
