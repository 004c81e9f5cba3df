"""What TLS between members costs in writes a second: `python -m benchmarks.tls`.

Two clusters of three agents on loopback, one with [tls] and one without; the load goes to one after
the other in the order A B B A, so that a machine that is busy for a while weighs on both alike.
Clients come over the Unix socket of the leader in both. Medians of the ratios of neighbours; what
a write costs in CPU time is the steadier figure where others are at work.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.agents import PATIENT, Agents, Load, Run, agents, end_in_order, run_load
from raft_agent.tls.authority import Subject, key_pem, make_authority, make_key
from raft_agent.tls.identity import Kind

BAR = 0.6
SHAPES = ((8, 128, 256), (64, 16, 256), (1000, 1, 1024), (1, 1, 256))


@dataclass
class Cost:
    """Of one run. `per_s`: writes a second; CPU in microseconds a write, of the leader and of the
    followers together; `p99_ms`: of a write.
    """

    per_s: float
    leader_us: float
    followers_us: float
    p99_ms: float


def certificates(directory: Path, names: list[str]) -> str:
    """Files for these nodes; what of raft.toml leads there, for the node NAME."""
    authority = make_authority("benchmark")
    (directory / "ca.pem").write_bytes(authority.certificate_pem())
    for name in names:
        key = make_key()
        signed = authority.sign(Subject(Kind.NODE, name, ("127.0.0.1",)), key.public_key())
        (directory / f"{name}.pem").write_bytes(signed)
        private = directory / f"{name}.key"
        private.touch(0o600)
        private.write_bytes(key_pem(key))
    return (
        f'[tls]\nca = "{directory}/ca.pem"\n'
        f'cert = "{directory}/NAME.pem"\nkey = "{directory}/NAME.key"\n'
    )


def cost(run: Run) -> Cost:
    ops = run.committed
    followers = sum(used for name, used in run.cpu_s.items() if name != run.leader)
    return Cost(
        per_s=run.bench["ops_per_s"],
        leader_us=run.cpu_s[run.leader] / ops * 1e6,
        followers_us=followers / ops * 1e6,
        p99_ms=run.bench["p99_ms"],
    )


def compare(
    plain: Agents, sealed: Agents, load: Load, rounds: int, seconds: float
) -> dict[str, Any]:
    """Medians of both, and of the ratios of neighbours."""
    found: dict[bool, list[Cost]] = {True: [], False: []}
    for turn in range(rounds):
        for with_tls in (True, False) if turn % 2 else (False, True):
            cluster = sealed if with_tls else plain
            found[with_tls].append(cost(run_load(cluster, load, seconds=seconds)))
    pairs = list(zip(found[True], found[False], strict=True))
    return {
        "clients": load.clients,
        "pipeline": load.pipeline,
        "value_bytes": load.value_size,
        "rounds": rounds,
        "ratio": statistics.median(tls.per_s / none.per_s for tls, none in pairs),
        "cpu_ratio": statistics.median(
            (tls.leader_us + tls.followers_us) / (none.leader_us + none.followers_us)
            for tls, none in pairs
        ),
        "ratios": [round(tls.per_s / none.per_s, 3) for tls, none in pairs],
        **{
            f"{field}_{word}": statistics.median(getattr(item, field) for item in found[with_tls])
            for field in ("per_s", "leader_us", "followers_us", "p99_ms")
            for word, with_tls in (("tls", True), ("plain", False))
        },
    }


def told(result: dict[str, Any]) -> str:
    """A result of `compare` for people."""
    leader, followers = (
        f"{result[f'{who}_us_plain']:.1f} to {result[f'{who}_us_tls']:.1f} µs"
        for who in ("leader", "followers")
    )
    return (
        f"{result['clients']} x {result['pipeline']}, {result['value_bytes']} B: "
        f"{result['per_s_tls']:,.0f} writes/s with TLS, {result['per_s_plain']:,.0f} without, "
        f"median of the ratios {result['ratio']:.2f} (bar: {BAR}); CPU a write "
        f"{result['cpu_ratio']:.2f} times as much: leader {leader}, both followers {followers}"
    )


def main(rounds: int, seconds: float, shapes: tuple[tuple[int, int, int], ...]) -> bool:
    """Whether the bar is kept in all shapes."""
    # One of a pair only would have a snapshot to take.
    quiet = PATIENT + "[storage]\nsnapshot_log_mib = 1000000\nsnapshot_entries = 1000000000\n"
    kept = True
    with tempfile.TemporaryDirectory(prefix="raft-bench-tls-") as folder:
        names = [f"node-{number:02}" for number in range(1, 4)]
        tls = certificates(Path(folder), names)
        with agents(extra=quiet) as plain, agents(extra=quiet + tls) as sealed:
            for clients, pipeline, value_size in shapes:
                load = Load(clients=clients, pipeline=pipeline, value_size=value_size)
                result = compare(plain, sealed, load, rounds, seconds)
                print(json.dumps(result), flush=True)
                print(told(result), file=sys.stderr)
                kept &= result["ratio"] >= BAR
    return kept


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument(
        "--shape", metavar="CLIENTS,PIPELINE,BYTES", action="append", help="may be given again"
    )
    options = parser.parse_args()
    end_in_order()
    chosen = tuple(tuple(map(int, shape.split(","))) for shape in options.shape or ())
    sys.exit(0 if main(options.rounds, options.seconds, chosen or SHAPES) else 1)  # type: ignore[arg-type]
