"""Half of the top load for a long time: `python -m benchmarks.steady [--minutes 10]`.

First the top load is measured, by a closed loop. Then requests are sent at half of that rate,
whether the answers come in time or not, and the latency of each counts from when it was due. Nobody
should stand for election meanwhile. `make bench` does not run this: it takes ten minutes a case,
and says something only on a machine that has nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.agents import Agents, Load, agents, end_in_order, run_load

LOADS = {
    "1000 x 1, 1 KiB": Load(1000, 1, key_size=256, value_size=1024),
    "8 x 128, 256 B": Load(8, 128),
}
_P99_MS = 10.0

Figures = dict[str, Any]


def half_load(cluster: Agents, load: Load, top_s: float, seconds: float) -> Figures:
    """The top load for `top_s`, then half of it."""
    top = run_load(cluster, load, seconds=top_s).bench["ops_per_s"]
    before = cluster.status(cluster.leader())
    bench = run_load(cluster, replace(load, rate=max(1, int(top / 2))), seconds=seconds).bench
    after = cluster.status(cluster.leader())
    chosen = ("ops_per_s", "p50_ms", "p99_ms", "p999_ms", "max_ms", "errors", "unknown", "unsent")
    return {
        "top_per_s": top,
        "rate": bench["rate"],
        **{key: bench[key] for key in chosen},
        "elections": after["term"] - before["term"],
    }


def complaint(found: Figures) -> str:
    """What it should not have been; "" when all is well."""
    wrong = [f"{found[key]} {key}" for key in ("errors", "unknown") if found[key]]
    if found["unsent"] > found["rate"] * _P99_MS / 1000:
        wrong.append(f"{found['unsent']} were due and never sent")
    if found["p99_ms"] > _P99_MS:
        wrong.append(f"p99 is {found['p99_ms']:.1f} ms and not {_P99_MS:g}")
    if found["elections"]:
        wrong.append(f"{found['elections']} elections")
    return ", ".join(wrong)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steady", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of each case")
    parser.add_argument("--top-seconds", type=float, default=10.0)
    parser.add_argument("--case", action="append", choices=list(LOADS), help="only this one")
    parser.add_argument("--json", type=Path, help="keep all figures in this file")
    arguments = parser.parse_args()
    end_in_order()
    results: dict[str, Figures] = {}
    for name in arguments.case or LOADS:
        with agents() as cluster:
            found = half_load(cluster, LOADS[name], arguments.top_seconds, 60 * arguments.minutes)
        results[name] = found
        print(f"{name}: {complaint(found) or 'as it should be'}")
        print("  " + ", ".join(f"{key} {value:,}" for key, value in found.items()))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    return 1 if any(map(complaint, results.values())) else 0


if __name__ == "__main__":
    sys.exit(main())
