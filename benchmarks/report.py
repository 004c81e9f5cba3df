"""Puts measured figures into docs/performance.md, between its two marks, and the curves into
docs/plots/: `python -m benchmarks.report COMPARE.json SCALE.json`, as `make bench` does.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from benchmarks import compare, scale
from benchmarks.svg import curve

_DOCS = Path(__file__).resolve().parent.parent / "docs"
_BEGIN, _END = "<!-- figures: written by make bench -->", "<!-- end of the figures -->"

# Of each group of curves: its title, what is below it, and the x of its rows.
_PLOTS = {
    "clients": ("Writes a second by clients, one request each", "clients", "clients"),
    "values": ("Writes a second by the size of values", "bytes of a value", "value_bytes"),
    "nodes": ("Writes a second by the number of nodes", "nodes", "nodes"),
}


def machine() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "")
    release = platform.release().partition("-")[0]
    return (
        f"{os.cpu_count()} cores ({model or platform.machine()}), {platform.system()} {release}, "
        f"Python {platform.python_version()}; {compare.versions()}"
    )


def plots(curves: dict[str, list[Any]]) -> list[str]:
    """Writes them; their lines in Markdown."""
    folder = _DOCS / "plots"
    folder.mkdir(exist_ok=True)
    lines = []
    for name, (title, label, x) in _PLOTS.items():
        points = [(row[x], row["ops_per_s"]) for row in curves[name]]
        (folder / f"{name}.svg").write_text(curve(title, label, points))
        lines.append(f"![{title}](plots/{name}.svg)")
    for name, title, label, points in (
        (
            "memory",
            "Resident MB by the number of keys",
            "keys",
            [(row["keys"], row["resident_after_start_bytes"] / 1e6) for row in curves["keys"]],
        ),
        (
            "start",
            "Seconds of a start by the length of the log",
            "entries that no snapshot stands for",
            [(row["log_entries"], row["start_s"]) for row in curves["log"]],
        ),
    ):
        (folder / f"{name}.svg").write_text(curve(title, label, points))
        lines.append(f"![{title}](plots/{name}.svg)")
    return lines


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    rounds = json.loads(Path(sys.argv[1]).read_text())
    curves = json.loads(Path(sys.argv[2]).read_text())
    block = [
        _BEGIN,
        "",
        f"{machine()}. {len(rounds)} rounds; medians, and the lowest and highest in brackets.",
        "",
        compare.tables(rounds),
        "",
        "### Curves",
        "",
        *plots(curves),
        "",
        scale.tables(curves).replace("### ", "#### "),
        "",
        _END,
    ]
    page = _DOCS / "performance.md"
    text = page.read_text()
    before, _, rest = text.partition(_BEGIN)
    after = rest.partition(_END)[2]
    page.write_text(before + "\n".join(block) + after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
