"""`raftctl bench` against a real API server."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from raftctl import sockets
from raftctl.main import cli
from tests.unit.cli.served import Served, json_of, raftctl, serving

SHORT = ("--duration", "0.3", "--warmup", "0.1", "--keys", "50")
FIELDS = {
    "ops_per_s",
    "p50_ms",
    "p99_ms",
    "p999_ms",
    "errors",
    "unknown",
    "clients",
    "pipeline",
    "value_size",
    "duration_s",
}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path / "node-01.sock") as running:
        yield running


@pytest.mark.parametrize(
    ("op", "clients", "pipeline", "processes"),
    [
        ("put", "4", "1", "1"),
        ("put", "3", "20", "2"),
        ("get", "4", "1", "2"),
        ("get", "2", "20", "1"),
        ("send", "2", "1", "1"),
    ],
)
def test_a_run_without_faults_counts_none(
    served: Served, op: str, clients: str, pipeline: str, processes: str
) -> None:
    shape = ("--clients", clients, "--pipeline", pipeline, "--processes", processes)
    done = raftctl("--socket", str(served.path), "-o", "json", "bench", op, *shape, *SHORT)
    assert done.returncode == 0, done.stderr
    data = json_of(done)
    assert set(data) >= FIELDS
    assert (data["errors"], data["unknown"]) == (0, 0)
    assert data["ops"] > 0
    assert 0 < data["p50_ms"] <= data["p99_ms"] <= data["p999_ms"] <= data["max_ms"]
    assert data["ops_per_s"] == pytest.approx(data["ops"] / data["duration_s"], rel=0.01)


def test_what_was_counted_was_applied(served: Served) -> None:
    """Every operation of the measured time, and those of warm-up and end on top."""
    path = str(served.path)
    data = json_of(raftctl("--socket", path, "-o", "json", "bench", "put", *SHORT))
    assert served.host.machine.last_applied >= data["ops"]
    listed = json_of(raftctl("--socket", path, "-o", "json", "propose", "list", "bench/"))
    assert len(listed["keys"]) == 50
    assert {len(item["value"]) for item in listed["keys"]} == {256}


def test_more_clients_than_the_soft_limit_of_open_files(served: Served) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))  # the server is in here
    try:
        done = raftctl(
            "--socket",
            str(served.path),
            "-o",
            "json",
            "bench",
            "put",
            "--clients",
            "1000",
            *SHORT,
            soft_files=64,
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert done.returncode == 0, done.stderr
    assert json_of(done)["errors"] == 0


def test_refusals_are_counted_by_code(served: Served) -> None:
    served.host.leader = None
    done = raftctl("--socket", str(served.path), "-o", "json", "--forward", "bench", "put", *SHORT)
    data = json_of(done)
    assert done.returncode == 1
    assert data["ops"] == 0
    assert data["error_codes"] == {"no_leader": data["errors"]}
    assert data["errors"] > 0


def test_answers_that_do_not_come_are_unknown(served: Served) -> None:
    served.host.hold_back = True
    done = raftctl(
        "--socket", str(served.path), "--timeout", "0.3", "-o", "json", "bench", "put",
        "--clients", "2", "--pipeline", "3", *SHORT,
    )  # fmt: skip
    data = json_of(done)
    assert done.returncode == 1
    assert data["unknown"] >= 6
    assert data["unknown"] % 3 == 0


def test_writes_to_a_follower_are_refused_with_the_leaders_name(served: Served) -> None:
    served.host.leader = "node-of-nowhere"
    done = raftctl("--socket", str(served.path), "bench", "put", *SHORT)
    assert done.returncode == 1
    assert "Hint: Send from leader node: node-of-nowhere" in done.stderr.decode()


def test_without_a_node_writes_find_the_leader_among_the_agents_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "_PLACES", ((tmp_path, "raft-", ".sock"),))
    with (
        serving(tmp_path / "raft-node-01.sock", "node-01") as follower,
        serving(tmp_path / "raft-node-02.sock", "node-02") as leader,
    ):
        follower.host.leader = "node-02"
        done = CliRunner().invoke(cli, ["bench", "put", *SHORT])
        assert done.exit_code == 0
        assert follower.host.machine.last_applied == 0
        assert leader.host.machine.last_applied > 0
    assert "node-01 is no leader: going to node-02" in done.stderr
