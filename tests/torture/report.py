"""What a run came to, in words and as a line for tables."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tests.torture.run import Verdict


def text(verdict: Verdict) -> str:
    lines = [
        f"seed {verdict.seed}: {verdict.operations} operations in {verdict.seconds:.0f} s "
        f"({verdict.outcomes['unknown']} unknown, {verdict.outcomes['no']} refused), "
        f"{verdict.strikes.total()} strikes; no write for {verdict.unavailable_ms:.0f} ms at most, "
        f"served {verdict.healed_s:.2f} s after healing; {verdict.maps_compared} states of maps "
        "compared: "
        f"{'VIOLATED' if verdict.complaints else 'ok'}"
    ]
    for check, complaints in verdict.complaints.items():
        lines.append(f"  not so: {check}")
        lines += [f"    {complaint}" for complaint in complaints]
    return "\n".join(lines)


def again(seed: int, minutes: float, directory: Path, only: str = "") -> str:
    """Where to look, and how to run it once more. The plan is the same then; what the machine does
    meanwhile is not."""
    kinds = f" --only {only}" if only else ""
    return (
        f"  history, logs and data: {directory}\n"
        f"  again: .venv/bin/python -m tests.torture --minutes {minutes:.2g} "
        f"--run-minutes {minutes:.2g} --seed {seed}{kinds}"
    )


def append(verdict: Verdict, path: Path) -> None:
    """One JSON object in a line."""
    with path.open("ab") as file:
        file.write(msgspec.json.encode(verdict) + b"\n")
