"""What the TC program costs in writes a second: `python -m benchmarks.kernel_throughput`, as root.

Three agents in network namespaces of their own, the clients beside the leader. The agents are
started with and without the program in turn, in the order A B B A, so that a machine that is busy
for a while weighs on both alike; medians of the ratios of neighbours. What a write costs in CPU
time is the steadier figure where others are at work.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks.agents import end_in_order
from tests.kernel.clusters import PATIENT, IsolatedCluster, isolated_cluster


class Result(NamedTuple):
    per_s: float
    cpu_us: float  # of all agents, a write


RAFTCTL = Path(sys.executable).with_name("raftctl")
BAR = 0.95


def start(cluster: IsolatedCluster, *, program: bool) -> None:
    """Anew, until it leads and, if it is to, sees."""
    for agent in cluster:
        agent.environment["RAFT_EBPF_ENABLED"] = "true" if program else "false"
        # One of a pair only would have one to take.
        agent.environment["RAFT_STORAGE_SNAPSHOT_LOG_MIB"] = "1000000"
        agent.environment["RAFT_STORAGE_SNAPSHOT_ENTRIES"] = "1000000000"
    cluster.start()
    cluster.leader()
    if program:
        cluster.wait_attached()


def stop(cluster: IsolatedCluster) -> None:
    """With all data, so that every start begins with an empty log."""
    for agent in cluster:
        agent.stop()
        shutil.rmtree(agent.data_dir)


def cpu_seconds(cluster: IsolatedCluster) -> float:
    """What all agents have used so far, in the kernel too."""
    ticks = 0
    for agent in cluster:
        fields = Path(f"/proc/{agent.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # utime and stime, see proc(5)
    return ticks / os.sysconf("SC_CLK_TCK")


def bench_put(cluster: IsolatedCluster, shape: tuple[int, int], seconds: float) -> Result:
    clients, pipeline = shape
    leader, before_s = cluster.leader(), cpu_seconds(cluster)
    done = subprocess.run(  # noqa: S603
        [
            *(RAFTCTL, "--socket", str(leader.socket_path), "-o", "json", "bench", "put"),
            *("--clients", str(clients), "--pipeline", str(pipeline), "--value-size", "256"),
            *("--duration", str(seconds), "--warmup", "0"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.stderr.write(done.stderr)
        done.check_returncode()
    found = json.loads(done.stdout)
    used_us = (cpu_seconds(cluster) - before_s) * 1e6
    return Result(found["ops_per_s"], used_us / found["ops"])


def measure(rounds: int, shape: tuple[int, int], seconds: float) -> bool:
    """Whether the bar is kept."""
    found: dict[bool, list[Result]] = {True: [], False: []}
    with isolated_cluster(timing=PATIENT, start=False) as cluster:
        for turn in range(rounds):
            for program in (True, False) if turn % 2 else (False, True):
                start(cluster, program=program)
                found[program].append(bench_put(cluster, shape, seconds))
                stop(cluster)
            there, none = found[True][-1], found[False][-1]
            print(
                f"{there.per_s:,.0f} writes/s with, {none.per_s:,.0f} without: "
                f"{there.per_s / none.per_s:.3f}; "
                f"{there.cpu_us:.1f} µs of CPU a write with, {none.cpu_us:.1f} without"
            )
    pairs = list(zip(found[True], found[False], strict=True))
    ratio = statistics.median(there.per_s / none.per_s for there, none in pairs)
    cpu = statistics.median(there.cpu_us / none.cpu_us for there, none in pairs)
    print(
        f"{shape[0]} clients x {shape[1]}, medians of {rounds} pairs: {ratio:.3f} times the writes "
        f"a second (bar: {BAR}), {cpu:.3f} times the CPU a write"
    )
    return ratio >= BAR


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--pipeline", type=int, default=16)
    options = parser.parse_args()
    end_in_order()
    kept = measure(options.rounds, (options.clients, options.pipeline), options.seconds)
    sys.exit(0 if kept else 1)
