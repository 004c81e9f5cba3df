"""How it scales: `python -m benchmarks.scale [--json FILE]`, each row on a fresh cluster.

Throughput over clients, value sizes and nodes; memory per key and connection; how long a start
takes, by the number of keys and by the length of the log, and how large a snapshot is.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import heartbeats
from benchmarks.agents import Agents, Load, RaftctlFailed, agents, end_in_order, run_load
from raft_agent.api import protocol
from raft_agent.api.client import SyncClient

CLIENTS = (1, 10, 100, 1000, 4000)
VALUE_BYTES = (16, 256, 4096, 65536)
NODES = (1, 3, 5, 7)
KEYS = (1_000, 10_000, 100_000, 1_000_000)
LOG_ENTRIES = (1_000, 10_000, 100_000, 1_000_000)
CONNECTIONS = 1000
# So that the log is never cut: what its length costs would not show.
_NO_SNAPSHOTS = "[storage]\nsnapshot_log_mib = 1000000\nsnapshot_entries = 1000000000"
_PER_FRAME = 512
_KEY_BYTES, _VALUE_BYTES = 16, 64

Row = dict[str, Any]


def throughput(what: Row, load: Load, seconds: float, nodes: int = 3) -> list[Row]:
    """`what` and the figures in one row; none when a machine that is too busy answers nothing in
    that time, nor in four times as much."""
    for duration_s in (seconds, 4 * seconds):
        try:
            with agents(nodes) as cluster:
                bench = run_load(cluster, load, seconds=duration_s).bench
        except RaftctlFailed as failure:
            print(failure, file=sys.stderr)
            continue
        chosen = ("ops_per_s", "p50_ms", "p99_ms", "errors", "unknown")
        return [{**what, **{key: bench[key] for key in chosen}}]
    return []


def fill(cluster: Agents, first: int, last: int, keys: int = 1_000_000_000) -> None:
    """Store the entries from `first` to `last`, each of another one of `keys` keys, in turn: of 16
    bytes, with values of 64."""
    value = bytes(range(_VALUE_BYTES))
    with SyncClient(str(cluster.socket(cluster.leader())), 60.0) as client:
        for start in range(first, last, _PER_FRAME):
            numbers = range(start, min(start + _PER_FRAME, last))
            client.request_many(
                [
                    protocol.Put(number - start + 1, f"key/{number % keys:012d}", value)
                    for number in numbers
                ]
            )


def keys_rows(counts: tuple[int, ...]) -> list[Row]:
    """One agent alone, and ever more keys: they cost the same on each node."""
    rows = []
    with agents(1) as cluster:
        (name,) = cluster.names
        empty = cluster.usage()[name].resident_bytes
        there = 0
        for count in counts:
            began = time.monotonic()
            fill(cluster, there, count)
            took_s = time.monotonic() - began
            resident = cluster.usage()[name].resident_bytes
            cluster.stop()
            began = time.monotonic()
            cluster.start()
            start_s = time.monotonic() - began
            after_start = cluster.usage()[name].resident_bytes
            snapshots = [path.stat().st_size for path in cluster.data(name).rglob("*.snap")]
            log = sum(path.stat().st_size for path in cluster.data(name).rglob("*.seg"))
            rows.append(
                {
                    "keys": count,
                    "stored_per_s": (count - there) / took_s,
                    "resident_bytes": resident,
                    "resident_after_start_bytes": after_start,
                    "overhead_per_key_bytes": (after_start - empty) / count
                    - _KEY_BYTES
                    - _VALUE_BYTES,
                    "start_s": start_s,
                    "newest_snapshot_bytes": max(snapshots, default=0),
                    "log_bytes": log,
                }
            )
            there = count
    return rows


def log_rows(counts: tuple[int, ...]) -> list[Row]:
    """One agent alone, whose log of a thousand keys is never cut: a start reads all of it."""
    rows = []
    with agents(1, extra=_NO_SNAPSHOTS) as cluster:
        (name,) = cluster.names
        there = 0
        for count in counts:
            fill(cluster, there, count, keys=1000)
            cluster.stop()
            began = time.monotonic()
            cluster.start()
            start_s = time.monotonic() - began
            log = sum(path.stat().st_size for path in cluster.data(name).rglob("*.seg"))
            resident = cluster.usage()[name].resident_bytes
            rows.append(
                {
                    "log_entries": count,
                    "log_bytes": log,
                    "start_s": start_s,
                    "resident_after_start_bytes": resident,
                }
            )
            there = count
    return rows


def connection_row() -> Row:
    with agents(1) as cluster:
        (name,) = cluster.names
        before = cluster.usage()[name].resident_bytes
        held = []
        for _ in range(CONNECTIONS):
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(cluster.socket(name)))
            held.append(connection)
        cluster.status(name)
        after = cluster.usage()[name].resident_bytes
        for connection in held:
            connection.close()
    return {"connections": CONNECTIONS, "bytes_each": (after - before) / CONNECTIONS}


def idle_rows(seconds: float) -> list[Row]:
    """Of each agent, and what the heartbeats alone cost a program that does nothing else."""
    with agents() as cluster:
        leader = cluster.leader()
        time.sleep(1)
        before = cluster.usage()
        time.sleep(seconds)
        after = cluster.usage()
    rows: list[Row] = [
        {
            "who": "leader" if name == leader else "follower",
            "cpu_percent": (after[name].cpu_s - before[name].cpu_s) / seconds * 100,
            "resident_mb": after[name].resident_bytes / 1e6,
        }
        for name in after
    ]
    sender, others = heartbeats.measure(seconds)
    for who, percent in (("sends heartbeats", sender), ("answers them", statistics.mean(others))):
        rows.append(
            {"who": f"a program that only {who}", "cpu_percent": percent, "resident_mb": ""}
        )
    return rows


def measure(seconds: float, most_keys: int) -> dict[str, list[Row]]:
    curves: dict[str, list[Row]] = {}
    curves["idle"] = idle_rows(max(20.0, seconds))
    curves["connections"] = [connection_row()]
    curves["keys"] = keys_rows(tuple(count for count in KEYS if count <= most_keys))
    curves["log"] = log_rows(tuple(count for count in LOG_ENTRIES if count <= most_keys))
    curves["clients"] = []
    for clients in CLIENTS:
        curves["clients"] += throughput({"clients": clients}, Load(clients, 1), seconds)
    curves["values"] = []
    for size in VALUE_BYTES:
        load = Load(8, 16, value_size=size)
        curves["values"] += throughput({"value_bytes": size}, load, seconds)
    curves["nodes"] = []
    for nodes in NODES:
        curves["nodes"] += throughput({"nodes": nodes}, Load(8, 128), seconds, nodes)
    return curves


# What the groups are called in the document, and under which load they were measured.
_ABOUT = {
    "idle": ("Idle", "Three nodes that nobody asks anything."),
    "connections": ("Connections", "Unix sockets that are held open, at one node."),
    "keys": ("Keys", "One node; keys of 16 bytes with values of 64, stored 512 a frame."),
    "log": ("Length of the log", "One node; a log of a thousand keys that is never cut."),
    "clients": ("Clients", "Writes of 256 B, one request in flight for each client."),
    "values": ("Size of values", "Writes of 8 clients with 16 requests in flight each (8 x 16)."),
    "nodes": ("Nodes", "Writes of 256 B, 8 clients with 128 requests in flight each (8 x 128)."),
}
# (head, how many of the measured units are one of the shown)
_HEADS: dict[str, tuple[str, float]] = {
    "who": ("process", 1),
    "cpu_percent": ("% of a core", 1),
    "resident_mb": ("resident MB", 1),
    "bytes_each": ("bytes for each", 1),
    "stored_per_s": ("stored a second", 1),
    "resident_bytes": ("resident MB", 1e6),
    "resident_after_start_bytes": ("resident MB after a start", 1e6),
    "overhead_per_key_bytes": ("bytes a key beside key and value", 1),
    "start_s": ("start, s", 1),
    "newest_snapshot_bytes": ("newest snapshot, MB", 1e6),
    "log_bytes": ("log, MB", 1e6),
    "log_entries": ("entries", 1),
    "value_bytes": ("bytes of a value", 1),
    "ops_per_s": ("writes/s", 1),
    "p50_ms": ("p50 ms", 1),
    "p99_ms": ("p99 ms", 1),
}


def _cell(key: str, value: object) -> str:
    _, unit = _HEADS.get(key, (key, 1))
    if unit != 1 and isinstance(value, int | float):
        return f"{value / unit:,.1f}"
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def tables(curves: dict[str, list[Row]]) -> str:
    """In Markdown."""
    parts = []
    for name, rows in curves.items():
        title, load = _ABOUT[name]
        heads = [_HEADS.get(key, (key, 1))[0] for key in rows[0]]
        lines = [f"### {title}", "", load, "", f"| {' | '.join(heads)} |"]
        lines.append(f"|{'--:|' * len(heads)}")
        for row in rows:
            cells = [_cell(key, value) for key, value in row.items()]
            lines.append(f"| {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--most-keys", type=int, default=KEYS[-1], help="and entries of a log")
    parser.add_argument("--json", type=Path, help="keep all figures in this file")
    arguments = parser.parse_args()
    end_in_order()
    curves = measure(arguments.seconds, arguments.most_keys)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(curves, indent=1) + "\n")
    print(tables(curves))
    return 0


if __name__ == "__main__":
    sys.exit(main())
