"""The figures of a load run, for programs and for people."""

from __future__ import annotations

from typing import Any

from raftctl.bench_requests import Plan
from raftctl.bench_stats import Tally
from raftctl.output import Output


def result_data(plan: Plan, tally: Tally, node: str, processes: int) -> dict[str, Any]:
    """The contract's fields and what one needs to judge them."""
    latencies = tally.latencies
    ops = latencies.count
    p50, p99, p999, worst = latencies.percentiles_ms((0.5, 0.99, 0.999, 1.0))
    return {
        "op": plan.op,
        "node": node,
        "ops_per_s": round(ops / tally.window_s, 1) if tally.window_s else 0.0,
        "p50_ms": p50,
        "p99_ms": p99,
        "p999_ms": p999,
        "max_ms": worst,
        "mean_ms": latencies.mean_ms(),
        "ops": ops,
        "errors": sum(tally.errors.values()),
        "unknown": tally.unknown,
        "error_codes": tally.errors,
        "clients": plan.clients,
        "pipeline": plan.pipeline,
        "processes": processes,
        "key_size": plan.key_size,
        "value_size": plan.value_size,
        "keys": plan.keys,
        "duration_s": round(tally.window_s, 3),
        "warmup_s": plan.warmup_s,
        "rate": plan.rate or None,
        "unsent": tally.unsent,
        "forward": plan.forward,
        "interrupted": tally.interrupted,
        "key_prefix": None if plan.op == "send" else "bench/",
        "consistency": plan.consistency if plan.op == "get" else None,
        "generator_cpu": round(tally.cpu_s / tally.window_s, 3) if tally.window_s else 0.0,
    }


def result_text(data: dict[str, Any], out: Output) -> str:
    def ms(name: str) -> str:
        return "-" if data[name] is None else f"{data[name]:,.3f} ms"

    errors = str(data["errors"])
    if data["error_codes"]:
        codes = ", ".join(f"{code} {count}" for code, count in sorted(data["error_codes"].items()))
        errors = out.colored(f"{errors} ({codes})", "red")
    left = "the messages that were sent"
    if data["key_prefix"]:
        left = f"up to {data['keys']:,} keys that start with bench/, which bench does not delete"
    rows = []
    if data["rate"]:
        behind = f"; {data['unsent']:,} were due and never sent" if data["unsent"] else ""
        rows = [("Rate", f"{data['rate']:,.0f} per second{behind}")]
    rows += [
        ("Operations", f"{data['ops_per_s']:,.1f} per second ({data['ops']:,} in all)"),
        ("Latency p50", ms("p50_ms")),
        ("        p99", ms("p99_ms")),
        ("        p99.9", ms("p999_ms")),
        ("        worst", ms("max_ms")),
        ("Errors", errors),
        ("Unknown", str(data["unknown"])),
        ("Left there", left),
        ("Generator", f"{data['generator_cpu'] * 100:.0f} % of one core"),
    ]
    return "\n".join(f"{name + ':':<15}{value}" for name, value in rows)
