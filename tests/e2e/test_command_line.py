"""raftctl against a cluster that `raftctl dev up` started: the contract, on real processes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

RAFTCTL = str(Path(sys.executable).with_name("raftctl"))
NAMES = ["node-01", "node-02", "node-03"]


def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [RAFTCTL, *arguments], input=stdin, capture_output=True, text=True, timeout=90, check=False
    )


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="raft-dev-"))
    up = run("dev", "up", "--http", "--dir", str(home))
    assert up.returncode == 0, up.stderr
    yield home
    down = run("dev", "down", "--dir", str(home))
    assert down.returncode == 0, down.stderr
    shutil.rmtree(home)


@pytest.fixture
def leader(directory: Path) -> str:
    status = json.loads(run("--node", "node-01", "-o", "json", "status").stdout)
    assert status["leader"] in NAMES
    return str(status["leader"])


@pytest.fixture
def follower(leader: str) -> str:
    return next(name for name in NAMES if name != leader)


def test_status_has_the_contracts_form(leader: str) -> None:
    text = run("--node", leader, "status").stdout
    others = json.dumps([name for name in NAMES if name != leader])
    assert re.match(
        "RAFT Cluster Status\n==================\n"
        f"Node ID:      {leader}\nRole:         Leader\nCurrent Term: \\d+\n"
        f"Commit Index: \\d+\nLast Applied: \\d+\nLeader:       {leader}\n"
        f"Peers:        {re.escape(others)}\n",
        text,
    ), text


def test_a_message_sent_at_the_leader_is_read_at_every_node(leader: str) -> None:
    sent = run("--node", leader, "send", "Hello from the RAFT cluster!")
    assert sent.returncode == 0
    found = re.fullmatch(
        '✓ Message sent: "Hello from the RAFT cluster!"\n  Replicated at log index (\\d+)\n',
        sent.stdout,
    )
    assert found, sent.stdout
    for name in NAMES:
        # A linearizable read is a barrier: the node has applied the message by then.
        run("--node", name, "propose", "get", "no such key")
        text = run("--node", name, "messages", "--limit", "1").stdout
        assert re.fullmatch(
            f"Messages \\(last applied index: \\d+\\)\n={{50}}\n"
            f"\\[\\d\\d:\\d\\d:\\d\\d\\] {leader}: Hello from the RAFT cluster!\n",
            text,
        ), text


def test_a_follower_refuses_a_message_and_names_the_leader(leader: str, follower: str) -> None:
    refused = run("--node", follower, "send", "Test message")
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert refused.stderr == (
        "✗ Failed to send: Not leader - send to leader node\n"
        f"  Hint: Send from leader node: {leader}\n"
    )


def test_a_follower_forwards_a_write_when_asked_to(follower: str) -> None:
    put = run("--node", follower, "--forward", "-o", "json", "propose", "put", "forwarded", "1")
    assert put.returncode == 0, put.stderr
    assert {"index", "term", "revision"} <= json.loads(put.stdout).keys()
    assert run("--node", follower, "propose", "get", "forwarded").stdout == "1\n"


def test_a_key_is_put_read_everywhere_and_deleted(leader: str) -> None:
    assert run("--node", leader, "propose", "put", "mykey", "my value").returncode == 0
    for name in NAMES:
        assert run("--node", name, "propose", "get", "mykey").stdout == "my value\n"
    assert run("--node", leader, "propose", "delete", "mykey").returncode == 0
    for name in NAMES:
        gone = run("--node", name, "propose", "get", "mykey")
        assert (gone.returncode, gone.stdout) == (4, "")


def test_if_absent_and_if_revision_guard_a_put(leader: str) -> None:
    first = run("--node", leader, "-o", "json", "propose", "put", "--if-absent", "guard", "1")
    revision = json.loads(first.stdout)["revision"]
    again = run("--node", leader, "propose", "put", "--if-absent", "guard", "2")
    assert again.returncode == 1
    stale = ("propose", "put", "--if-revision", str(revision - 1), "guard", "3")
    assert run("--node", leader, *stale).returncode == 1
    fresh = ("propose", "put", "--if-revision", str(revision), "guard", "4")
    assert run("--node", leader, *fresh).returncode == 0
    assert run("--node", leader, "propose", "get", "guard").stdout == "4\n"


def test_no_agent_gives_exit_status_5() -> None:
    assert run("--node", "node-99", "status").returncode == 5


def test_health_lists_every_member(leader: str) -> None:
    health = run("--node", leader, "health")
    assert health.returncode == 0
    assert all(name in health.stdout for name in NAMES)


def test_leadership_moves_to_the_member_that_is_named(leader: str, follower: str) -> None:
    moved = run("--node", leader, "leader", "transfer", follower)
    assert moved.returncode == 0, moved.stderr
    status = json.loads(run("--node", follower, "-o", "json", "status").stdout)
    assert status["role"] == "leader"


def test_a_thousand_clients_put_without_an_error(leader: str) -> None:
    bench = run(
        *("--node", leader, "-o", "json", "bench", "put", "--clients", "1000", "--pipeline", "1"),
        *("--duration", "3"),
    )
    assert bench.returncode == 0, bench.stderr
    figures = json.loads(bench.stdout)
    assert (figures["errors"], figures["unknown"]) == (0, 0)
    assert figures["ops_per_s"] > 0
    assert figures["clients"] == 1000


def test_up_names_the_leaders_status_page(directory: Path, leader: str) -> None:
    again = run("-o", "json", "dev", "up", "--dir", str(directory))
    pages = {row["name"]: row["status_page"] for row in json.loads(again.stdout)["nodes"]}
    with urllib.request.urlopen(pages[leader], timeout=20) as answer:  # noqa: S310
        assert answer.status == 200
    assert f"  See: {pages[leader]}\n" in run("dev", "up", "--dir", str(directory)).stdout


def test_up_on_a_running_directory_changes_nothing(directory: Path, leader: str) -> None:
    pids = {name: (directory / name / "agent.pid").read_text() for name in NAMES}
    again = run("dev", "up", "--dir", str(directory))
    assert again.returncode == 0, again.stderr
    assert {name: (directory / name / "agent.pid").read_text() for name in NAMES} == pids


def test_up_refuses_where_another_directorys_nodes_live(directory: Path, tmp_path: Path) -> None:
    other = run("dev", "up", "--dir", str(tmp_path / "other"))
    assert other.returncode == 1
    assert "raft-node-01.sock" in other.stderr
