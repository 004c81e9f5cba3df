"""`raftctl bench` against a real API server."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from raftctl import sockets
from raftctl.main import cli
from tests.unit.cli.served import (
    TIMEOUT_S,
    Follower,
    Served,
    clean_environment,
    json_of,
    raftctl,
    serving,
)

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


@pytest.mark.parametrize(("op", "processes"), [("put", "1"), ("put", "2"), ("get", "1")])
def test_with_a_rate_so_many_are_sent_and_no_more(served: Served, op: str, processes: str) -> None:
    shape = ("--clients", "4", "--pipeline", "4", "--processes", processes, "--rate", "200")
    data = json_of(raftctl("--socket", str(served.path), "-o", "json", "bench", op, *shape, *SHORT))
    assert (data["rate"], data["errors"], data["unknown"]) == (200, 0, 0)
    assert 0 < data["ops"] + data["unsent"] <= 200 * (data["duration_s"] + data["warmup_s"]) + 1


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
            "200",
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


def test_what_a_run_leaves_behind_is_said(served: Served) -> None:
    at = ("--socket", str(served.path))
    put = raftctl(*at, "bench", "put", *SHORT).stdout.decode()
    assert "Left there:    up to 50 keys that start with bench/, which bench does not delete" in put
    send = raftctl(*at, "bench", "send", "--clients", "1", *SHORT).stdout.decode()
    assert "Left there:    the messages that were sent" in send
    data = json_of(raftctl(*at, "-o", "json", "bench", "get", *SHORT))
    assert data["key_prefix"] == "bench/"
    shown = CliRunner().invoke(cli, ["bench", "--help"]).output
    assert "bench/" in shown
    assert "deletes nothing" in shown


@pytest.mark.parametrize("processes", ["1", "2"])
def test_an_interrupted_run_shows_what_was_measured_so_far(served: Served, processes: str) -> None:
    options = ("--clients", "2", "--processes", processes, "--warmup", "0", "--duration", "1000")
    with Follower("--socket", str(served.path), "-o", "json", "bench", "put", *options) as bench:
        assert bench.note().startswith("put on node-01: 2 clients")
        wait_until(lambda: served.host.machine.last_applied > 100)
        assert bench.interrupt() == 130
        data = json.loads(bench.line())
        assert "Interrupted" in bench.note()
    assert data["interrupted"]
    assert data["ops"] > 0
    assert 0 < data["duration_s"] < 1000


def test_a_run_that_is_interrupted_in_its_warm_up_has_measured_nothing(served: Served) -> None:
    options = ("--clients", "2", "--warmup", "1000", "--duration", "1000")
    with Follower("--socket", str(served.path), "bench", "put", *options) as bench:
        assert bench.note().startswith("put on node-01: 2 clients")
        wait_until(lambda: served.host.machine.last_applied > 100)
        assert bench.interrupt() == 130
        assert "nothing was measured" in bench.note()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# Right after the last one, when the first process has connected and said so.
_INTERRUPTED_AMID_ITS_FORKS = """
import os, select, signal

fork, pipe, read_ends = os.fork, os.pipe, []


def and_note():
    made = pipe()
    read_ends.append(made[0])
    return made


def and_interrupt():
    pid = fork()
    if pid and len(read_ends) == 3:  # the start's, and a report of each
        select.select([read_ends[1]], [], [])
        os.kill(os.getpid(), signal.SIGINT)
    return pid


os.fork, os.pipe = and_interrupt, and_note
from raftctl.main import main

main()
"""


def test_an_interrupt_amid_the_forks_leaves_no_load_process_behind(tmp_path: Path) -> None:
    with serving(tmp_path / "node-01.sock") as served:
        shape = ("--clients", "2", "--processes", "2", "--timeout", "60", "--duration", "100")
        words = ("--socket", str(served.path), "bench", "put", *shape)
        with subprocess.Popen(
            [sys.executable, "-c", _INTERRUPTED_AMID_ITS_FORKS, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=clean_environment(),
        ) as bench:
            # A child that goes on would hold the pipes open.
            bench.communicate(timeout=TIMEOUT_S)
            assert bench.returncode in (1, 130)


def test_an_interrupt_before_the_start_leaves_no_load_process_behind(tmp_path: Path) -> None:
    """Whether they have connected by then or not."""
    with serving(tmp_path / "node-01.sock") as served:
        shape = ("--clients", "2", "--processes", "2", "--timeout", "60", "--duration", "1000")
        with Follower("--socket", str(served.path), "bench", "put", *shape) as bench:
            assert bench.note().startswith("put on node-01")
            bench.process.send_signal(signal.SIGINT)
            assert bench.process.wait(TIMEOUT_S) in (1, 130)  # 1: before there were any
            # A child that goes on would hold the pipe open.
            assert bench.process.stderr is not None
            bench.process.stderr.read()


# As fork(2) does when a user has as many processes as it may have.
_LAST_FORK_FAILS = """
import errno, os

fork, forked = os.fork, []


def and_fail():
    if len(forked) == 2:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    forked.append(fork())
    return forked[-1]


os.fork = and_fail
from raftctl.main import main

main()
"""


def test_a_fork_that_fails_ends_the_load_processes_before_it_and_says_what_to_do(
    tmp_path: Path,
) -> None:
    with serving(tmp_path / "node-01.sock") as served:
        shape = ("--clients", "3", "--processes", "3", "--warmup", "0", "--duration", "0.3")
        words = ("--socket", str(served.path), "bench", "put", *shape)
        with subprocess.Popen(
            [sys.executable, "-c", _LAST_FORK_FAILS, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=clean_environment(),
        ) as bench:
            # A child that goes on would hold the pipes open.
            _, told = bench.communicate(timeout=TIMEOUT_S)
        assert bench.returncode == 1
        assert "Resource temporarily unavailable\n  Hint: Use fewer --processes" in told.decode()
        assert served.host.machine.last_applied == 0
