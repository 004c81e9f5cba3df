"""What reads cost at each consistency: `python -m benchmarks.reads`, on a cluster of its own.

Three agents on this machine, their clients on it as well. The kinds of read take turns within each
round, so that a machine that is busy for a while slows all of them down; medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

RAFTCTL = Path(sys.executable).with_name("raftctl")
CONSISTENCIES = ("linearizable", "lease", "stale")
SHAPES = ((1, 1), (64, 1), (1000, 1), (8, 128))  # clients, pipeline


def raftctl(*arguments: str) -> str:
    done = subprocess.run(  # noqa: S603
        [RAFTCTL, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.stderr.write(done.stderr)
        done.check_returncode()
    return done.stdout


def roles(names: list[str]) -> tuple[str, str]:
    """(the leader, a follower)."""
    leader = json.loads(raftctl("--node", names[0], "-o", "json", "status"))["leader"]
    return leader, next(name for name in names if name != leader)


def measure(
    node: str, consistency: str, shape: tuple[int, int], seconds: float
) -> dict[str, float]:
    clients, pipeline = shape
    printed = raftctl(
        *("--node", node, "-o", "json", "bench", "get", "--consistency", consistency),
        *("--clients", str(clients), "--pipeline", str(pipeline), "--value-size", "256"),
        *("--duration", str(seconds), "--warmup", "0.5"),
    )
    result: dict[str, float] = json.loads(printed)
    return result


def table(runs: dict[tuple[str, str, tuple[int, int]], list[dict[str, float]]]) -> str:
    lines = [
        "| at | consistency | clients x pipeline | reads/s | spread | p50 ms | p99 ms | errors |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for (where, consistency, (clients, pipeline)), results in runs.items():
        rates = [result["ops_per_s"] for result in results]
        middle = {key: statistics.median(r[key] for r in results) for key in ("p50_ms", "p99_ms")}
        errors = sum(int(result["errors"]) for result in results)
        lines.append(
            f"| {where} | {consistency} | {clients} x {pipeline} | {statistics.median(rates):,.0f} "
            f"| {min(rates):,.0f}-{max(rates):,.0f} | {middle['p50_ms']:.2f} "
            f"| {middle['p99_ms']:.2f} | {errors} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reads", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args()
    runs: dict[tuple[str, str, tuple[int, int]], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="raft-bench-") as directory:
        try:
            raftctl("dev", "up", "--dir", directory)
            for _ in range(arguments.rounds):
                leader, follower = roles(["node-01", "node-02", "node-03"])
                for where, node in (("leader", leader), ("follower", follower)):
                    for shape in SHAPES:
                        for consistency in CONSISTENCIES:
                            result = measure(node, consistency, shape, arguments.seconds)
                            runs.setdefault((where, consistency, shape), []).append(result)
        finally:
            raftctl("dev", "down", "--dir", directory)
    print(f"Python {platform.python_version()}, {platform.machine()}, {arguments.rounds} rounds\n")
    print(table(runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
