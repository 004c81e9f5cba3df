"""A cluster of agents on loopback for the benchmarks, and what its processes used."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.agents import free_ports

_START_TIMEOUT_S = 30.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


# For what is not about elections: a machine that is busy with other work is to start none.
PATIENT = "[timing]\nelection_timeout_min_ms = 1000\nelection_timeout_max_ms = 2000\n"


@dataclass
class Usage:
    """One process so far: seconds of processor time, bytes that it made the kernel write to disk
    (proc(5), `write_bytes` of /proc/PID/io), and its resident memory in bytes.
    """

    cpu_s: float
    written_bytes: int
    resident_bytes: int


def usage(pid: int) -> Usage:
    """Raises OSError when there is no such process."""
    proc = Path("/proc", str(pid))
    fields = (proc / "stat").read_text().rpartition(")")[2].split()
    io = dict(line.split(": ") for line in (proc / "io").read_text().splitlines())
    status = (proc / "status").read_text().splitlines()
    resident_kib = next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
    return Usage(
        cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS_PER_S,
        written_bytes=int(io["write_bytes"]),
        resident_bytes=resident_kib << 10,
    )


def end_in_order() -> None:
    """Have SIGTERM, and SIGINT in the background too, end what was started like everything else."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: sys.exit(128 + received))


class RaftctlFailed(Exception):  # noqa: N818
    """raftctl ended with an error; the text says which."""


class Agents:
    """Agents node-01 … that run from `folder`. `environment`: for them and for raftctl. `extra`:
    more of raft.toml; NAME in it stands for each node's own.
    """

    def __init__(
        self, folder: Path, nodes: int, environment: dict[str, str], extra: str = ""
    ) -> None:
        self.names = [f"node-{number:02}" for number in range(1, nodes + 1)]
        self._folder = folder
        self._environment = {**os.environ, **environment}
        self._raftctl = [sys.executable, "-m", "raftctl.main"]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ports = dict(zip(self.names, free_ports(nodes), strict=True))
        for name in self.names:
            self._configure(name, self._ports, extra)

    def _configure(self, name: str, ports: dict[str, int], extra: str) -> None:
        home = self._folder / name
        home.mkdir()
        lines = [
            "[server]",
            f'node_id = "{name}"',
            f'listen_addr = "127.0.0.1:{ports[name]}"',
            f'data_dir = "{home / "data"}"',
            f'ipc_socket = "{self.socket(name)}"',
            extra.replace("NAME", name),
        ]
        if len(ports) == 1:
            lines += ["[cluster]", "bootstrap = true"]
        for other, port in ports.items():
            if other != name:
                lines += ["[[peers]]", f'id = "{other}"', f'address = "127.0.0.1:{port}"']
        (home / "raft.toml").write_text("\n".join(lines) + "\n")

    def socket(self, name: str) -> Path:
        return self._folder / name / "ipc.sock"

    def data(self, name: str) -> Path:
        return self._folder / name / "data"

    def port(self, name: str) -> int:
        """Where members reach it."""
        return self._ports[name]

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    def usage(self) -> dict[str, Usage]:
        """By name."""
        return {name: usage(process.pid) for name, process in self._processes.items()}

    def start(self, *names: str) -> None:
        """Start these, or all; returns once they have a leader."""
        for name in names or self.names:
            home = self._folder / name
            with (home / "agent.log").open("ab") as log:
                self._processes[name] = subprocess.Popen(  # noqa: S603
                    [sys.executable, "-m", "raft_agent.main", "--config", home / "raft.toml"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._environment,
                )
        self.leader()

    def stop(self) -> None:
        """End what `start` started."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def raftctl(self, name: str, *arguments: str) -> Any:
        """What raftctl says at this node, in JSON. Raises RaftctlFailed."""
        done = subprocess.run(  # noqa: S603
            [*self._raftctl, "--socket", self.socket(name), "-o", "json", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env=self._environment,
        )
        if done.returncode:
            raise RaftctlFailed(f"raftctl {' '.join(arguments)} at {name}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def status(self, name: str) -> Any:
        return self.raftctl(name, "status")

    def leader(self) -> str:
        """The node that leads, once all that run agree."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                statuses = [self.status(name) for name in self._processes]
            except RaftctlFailed:
                time.sleep(0.05)
                continue
            leaders = {status["leader"] for status in statuses}
            if len(leaders) == 1 and None not in leaders:
                return str(leaders.pop())
        raise TimeoutError(f"no leader after {_START_TIMEOUT_S:g} s; see {self._folder}")

    def follower(self) -> str:
        leader = self.leader()
        return next(name for name in self._processes if name != leader)


@contextmanager
def agents(
    nodes: int = 3, *, environment: dict[str, str] | None = None, extra: str = ""
) -> Iterator[Agents]:
    """A running cluster in a directory of its own; both are gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="raft-bench-"))
    cluster = Agents(folder, nodes, environment or {}, extra)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder)


@dataclass
class Load:
    """What `raftctl bench` is asked for. `op`: put, get or send; sizes in bytes. `rate`: requests a
    second; 0: as many as are answered."""

    clients: int
    pipeline: int
    op: str = "put"
    key_size: int = 16
    value_size: int = 256
    keys: int = 10_000
    consistency: str = "linearizable"
    processes: int = 1
    rate: int = 0

    def arguments(self, seconds: float, warmup_s: float) -> list[str]:
        chosen = ["bench", self.op]
        if self.op == "get":
            chosen += ["--consistency", self.consistency]
        for name in ("clients", "pipeline", "key_size", "value_size", "keys", "processes"):
            chosen += [f"--{name.replace('_', '-')}", str(getattr(self, name))]
        if self.rate:
            chosen += ["--rate", str(self.rate)]
        return [*chosen, "--duration", str(seconds), "--warmup", str(warmup_s)]


@dataclass
class Run:
    """One run of `raftctl bench` and what its cluster did in that time, warm-up included.

    `bench`: raftctl's JSON. `committed`: by how much commit_index grew. `cpu_s` and
    `written_bytes`: of each agent, by name. `resident_bytes`: of each agent, afterwards.
    """

    bench: dict[str, Any]
    committed: int
    leader: str
    cpu_s: dict[str, float]
    written_bytes: dict[str, int]
    resident_bytes: dict[str, int]


def run_load(
    cluster: Agents, load: Load, *, at: str = "", seconds: float = 4.0, warmup_s: float = 1.0
) -> Run:
    """Load the leader, or the node `at`."""
    leader = cluster.leader()
    before, index_before = cluster.usage(), cluster.status(leader)["commit_index"]
    bench = cluster.raftctl(at or leader, *load.arguments(seconds, warmup_s))
    after, index_after = cluster.usage(), cluster.status(leader)["commit_index"]
    return Run(
        bench=bench,
        committed=index_after - index_before,
        leader=leader,
        cpu_s={name: after[name].cpu_s - before[name].cpu_s for name in after},
        written_bytes={
            name: after[name].written_bytes - before[name].written_bytes for name in after
        },
        resident_bytes={name: after[name].resident_bytes for name in after},
    )
