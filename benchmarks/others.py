"""The systems that compare.py measures beside this one, each with three nodes on loopback."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.agents import usage
from tests.e2e.agents import free_ports

_NODES = 3
_START_TIMEOUT_S = 30.0
_END_TIMEOUT_S = 10.0
_CHECK_PERF_S = 60


@contextmanager
def _ended(process: subprocess.Popen[Any]) -> Iterator[subprocess.Popen[Any]]:
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Etcd:
    """A cluster of Debian's etcd."""

    def __init__(self, endpoints: list[str], pids: list[int]) -> None:
        self.endpoints = endpoints
        self._pids = pids

    @staticmethod
    def version() -> str:
        """ "" when etcd is not installed."""
        if shutil.which("etcd") is None or shutil.which("etcdctl") is None:
            return ""
        said = subprocess.run(
            ["etcd", "--version"],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        return said.split("\n", 1)[0].rpartition(" ")[2]

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Etcd]:
        """It ends, and its files are gone, with the block."""
        names = [f"e{number}" for number in range(_NODES)]
        ports = free_ports(2 * _NODES)
        peers = [f"http://127.0.0.1:{port}" for port in ports[:_NODES]]
        endpoints = [f"http://127.0.0.1:{port}" for port in ports[_NODES:]]
        cluster = ",".join(f"{name}={peer}" for name, peer in zip(names, peers, strict=True))
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="etcd-bench-")))
            pids = []
            for name, peer, endpoint in zip(names, peers, endpoints, strict=True):
                log = stack.enter_context((folder / f"{name}.log").open("wb"))
                process = subprocess.Popen(  # noqa: S603
                    [
                        *("etcd", "--name", name, "--data-dir", str(folder / name)),
                        *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                        *("--listen-client-urls", endpoint, "--advertise-client-urls", endpoint),
                        *("--initial-cluster", cluster, "--initial-cluster-state", "new"),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
                stack.enter_context(_ended(process))
                pids.append(process.pid)
            etcd = cls(endpoints, pids)
            etcd._await_health()
            yield etcd

    def _etcdctl(self, *arguments: str, timeout_s: float = 120) -> str:
        endpoints = ",".join(self.endpoints)
        command = ["etcdctl", "--command-timeout=60s", "--endpoints", endpoints, *arguments]
        done = subprocess.run(  # noqa: S603
            command,
            env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin:/usr/local/bin"},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
        return done.stdout + done.stderr

    def _await_health(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while self._etcdctl("endpoint", "health").count("is healthy") < _NODES:
            if time.monotonic() > deadline:
                raise TimeoutError(f"etcd was not healthy after {_START_TIMEOUT_S:g} s")
            time.sleep(0.1)

    def written_bytes(self) -> int:
        """By all nodes, since they were started."""
        return sum(usage(pid).written_bytes for pid in self._pids)

    def check_perf(self) -> float:
        """Writes a second of `etcdctl check perf --load=xl`, which takes a minute: 1,000 clients,
        keys of 256 bytes and values of 1 KiB, at most 15,000 a second.

        It deletes its keys before it says the figure. Where that takes too long it says none, and
        etcd's own count of writes (its revision) has to do.
        """
        before = self._revision()
        found = re.search(r"(\d+) writes/s", self._etcdctl("check", "perf", "--load=xl"))
        if found is not None:
            return float(found[1])
        return (self._revision() - before) / _CHECK_PERF_S

    def _revision(self) -> int:
        statuses = json.loads(self._etcdctl("endpoint", "status", "-w", "json"))
        return max(int(item["Status"]["header"]["revision"]) for item in statuses)

    def one_client(self, seconds: float, key_size: int, value_size: int) -> dict[str, float]:
        """One client that waits for each answer, through etcd-client-py (the Rust client), at the
        leader. Raises ImportError without it."""
        return asyncio.run(self._one_client(seconds, key_size, value_size))

    def _leader_endpoint(self) -> str:
        for item in json.loads(self._etcdctl("endpoint", "status", "-w", "json")):
            status = item["Status"]
            if status["leader"] == status["header"]["member_id"]:
                return str(item["Endpoint"])
        return self.endpoints[0]

    async def _one_client(self, seconds: float, key_size: int, value_size: int) -> dict[str, float]:
        from etcd_client import Client  # noqa: PLC0415

        value = b"v" * value_size
        latencies: list[float] = []
        begin = time.perf_counter() + 1.0
        async with Client([self._leader_endpoint()]).connect() as client:
            number = 0
            now = time.perf_counter()
            while now < begin + seconds:
                await client.put(f"{number % 10_000:0{key_size}d}".encode(), value)
                sent, now = now, time.perf_counter()
                if now >= begin:
                    latencies.append(now - sent)
                number += 1
        return {
            "ops_per_s": len(latencies) / seconds,
            "p50_ms": statistics.median(latencies) * 1000,
            "errors": 0,
            "unknown": 0,
        }


class PySyncObj:
    """A cluster of PySyncObj, loaded from within its leader."""

    def __init__(self, leader: subprocess.Popen[str]) -> None:
        self._leader = leader

    @staticmethod
    def version() -> str:
        """ "" when it is not installed."""
        try:
            from pysyncobj.version import VERSION  # noqa: PLC0415
        except ImportError:
            return ""
        return str(VERSION)

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[PySyncObj]:
        """It ends with the block."""
        addresses = [f"127.0.0.1:{port}" for port in free_ports(_NODES)]
        with ExitStack() as stack:
            processes = {}
            for own in addresses:
                others = [address for address in addresses if address != own]
                process = subprocess.Popen(  # noqa: S603
                    [sys.executable, Path(__file__).with_name("pysyncobj_node.py"), own, *others],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
                stack.enter_context(_ended(process))
                processes[own] = process
            leaders = [_line(process).split()[-1] for process in processes.values()]
            yield cls(processes[leaders[-1]])

    def load(
        self, seconds: float, in_flight: int, key_size: int, value_size: int
    ) -> dict[str, float]:
        leader = self._leader
        assert leader.stdin is not None  # noqa: S101  # asked for where it was started
        leader.stdin.write(f"run {seconds} {in_flight} {key_size} {value_size}\n")
        leader.stdin.flush()
        result: dict[str, float] = json.loads(_line(leader))
        return result


def _line(process: subprocess.Popen[str]) -> str:
    """The next line that it says."""
    assert process.stdout is not None  # noqa: S101  # asked for where it was started
    return process.stdout.readline()
