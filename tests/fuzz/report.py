"""What libFuzzer says of a run, and the table that the runs add up to."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LAST = re.compile(r"^#\d+\s+\w+\s+cov: (\d+) ft: (\d+)", re.MULTILINE)
_STAT = re.compile(r"^stat::(\w+): +(\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """One target's run: inputs tried, branches of our code that were reached, the process's peak
    memory, and the files with inputs that were findings."""

    target: str
    seconds: float
    executions: int
    coverage: int
    peak_mib: int
    findings: tuple[str, ...]


def read(target: str, seconds: float, output: str, findings: tuple[str, ...]) -> Run:
    stats = {name: int(value) for name, value in _STAT.findall(output)}
    reached = _LAST.findall(output)
    return Run(
        target,
        seconds,
        stats.get("number_of_executed_units", 0),
        int(reached[-1][0]) if reached else 0,
        stats.get("peak_rss_mb", 0),
        findings,
    )


def table(runs: list[Run]) -> str:
    """The runs as a table in Markdown."""
    lines = [
        "| target | seconds | inputs | branches reached | peak MiB | findings |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| `{run.target}` | {run.seconds:.0f} | {run.executions:,} | {run.coverage} | "
        f"{run.peak_mib} | {len(run.findings)} |"
        for run in runs
    ]
    seconds, inputs = sum(run.seconds for run in runs), sum(run.executions for run in runs)
    found = sum(len(run.findings) for run in runs)
    return "\n".join([*lines, f"| all | {seconds:.0f} | {inputs:,} | | | {found} |"])
