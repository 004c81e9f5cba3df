"""A full disk: the node stops acknowledging, the others go on, and it comes back with room."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import pytest

from raft_agent.api import protocol
from tests.e2e.agents import UNREACHABLE, Agent, LocalCluster, local_cluster, wait_for
from tests.e2e.load import Load

needs_mount = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small file system needs root"
)


def _failed(agent: Agent) -> bool | None:
    status = agent.status()
    return True if status is not None and "no space" in status.note.lower() else None


def _move_to_small_disk(agent: Agent) -> None:
    agent.data_dir.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(agent.data_dir)], check=True
    )
    (agent.data_dir / "ballast").write_bytes(bytes(8 << 20))


def _leader(cluster: LocalCluster, without: Agent) -> Agent | None:
    for agent in cluster:
        status = agent.status() if agent is not without else None
        if status is not None and status.role == "leader":
            return agent
    return None


def _fill(cluster: LocalCluster, small: Agent) -> None:
    """Write through whoever leads until `small` has no room; it may lead itself at first."""
    value = bytes(range(256)) * 1024

    def put_until_full() -> bool | None:
        for number in range(20):
            with contextlib.suppress(*UNREACHABLE):
                put = protocol.Put(number, f"large-{number}", value, -1, forward=True)
                cluster.agents["node-01"].ask(put, timeout_s=10)
        return _failed(small)

    wait_for(f"the disk of {small.name} to be full", put_until_full, timeout_s=60)


@needs_mount
def test_a_node_with_a_full_disk_stands_aside_and_comes_back_when_there_is_room() -> None:
    with local_cluster(start=False) as cluster:
        small = cluster.agents["node-03"]
        _move_to_small_disk(small)
        try:
            cluster.start()
            cluster.leader()
            _fill(cluster, small)
            leader = wait_for("a leader among the others", lambda: _leader(cluster, small))
            load = Load(str(leader.socket_path), 8, "meanwhile")
            load.run_until(50, lambda: None)
            assert _failed(small)
            (small.data_dir / "ballast").unlink()
            subprocess.run(["mount", "-o", "remount,size=64m", str(small.data_dir)], check=True)
            status = cluster.leader().status()
            assert status is not None
            cluster.wait_applied(status.commit_index)
            kinds = [event.kind for event in small.events()]
            assert "started" in kinds
        finally:
            cluster.kill()
            subprocess.run(["umount", str(small.data_dir)], check=True)
