"""What the TC program costs in writes a second: `python -m benchmarks.kernel_throughput`, as root.

Three agents in network namespaces of their own, the clients beside the leader. The agents are
started with and without the program in turn, in the order A B B A, so that a machine that is busy
for a while, and a log that grows, weigh on both alike; medians of the ratios of neighbours.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from tests.kernel.clusters import PATIENT, IsolatedCluster, isolated_cluster

RAFTCTL = Path(sys.executable).with_name("raftctl")
BAR = 0.95


def start(cluster: IsolatedCluster, *, program: bool) -> None:
    """Anew, until it leads and, if it is to, sees."""
    for agent in cluster:
        agent.environment["RAFT_EBPF_ENABLED"] = "true" if program else "false"
    cluster.start()
    cluster.leader()
    if program:
        cluster.wait_attached()


def stop(cluster: IsolatedCluster) -> None:
    for agent in cluster:
        agent.stop()


def writes_per_second(cluster: IsolatedCluster, shape: tuple[int, int], seconds: float) -> float:
    clients, pipeline = shape
    done = subprocess.run(  # noqa: S603
        [
            *(RAFTCTL, "--socket", str(cluster.leader().socket_path), "-o", "json", "bench", "put"),
            *("--clients", str(clients), "--pipeline", str(pipeline), "--value-size", "256"),
            *("--duration", str(seconds), "--warmup", "1"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.stderr.write(done.stderr)
        done.check_returncode()
    found: float = json.loads(done.stdout)["ops_per_s"]
    return found


def measure(rounds: int, shape: tuple[int, int], seconds: float) -> bool:
    """Whether the bar is kept."""
    rates: dict[bool, list[float]] = {True: [], False: []}
    ratios = []
    with isolated_cluster(timing=PATIENT, start=False) as cluster:
        for turn in range(rounds):
            pair = {}
            for program in (True, False) if turn % 2 else (False, True):
                start(cluster, program=program)
                pair[program] = writes_per_second(cluster, shape, seconds)
                rates[program].append(pair[program])
                stop(cluster)
            ratios.append(pair[True] / pair[False])
            print(f"{pair[True]:,.0f} with, {pair[False]:,.0f} without: {ratios[-1]:.3f}")
    ratio = statistics.median(ratios)
    print(
        f"{shape[0]} clients x {shape[1]}: medians {statistics.median(rates[True]):,.0f} writes/s "
        f"with the program, {statistics.median(rates[False]):,.0f} without; "
        f"ratio {ratio:.3f} (bar: {BAR})"
    )
    return ratio >= BAR


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--pipeline", type=int, default=16)
    options = parser.parse_args()
    kept = measure(options.rounds, (options.clients, options.pipeline), options.seconds)
    sys.exit(0 if kept else 1)
