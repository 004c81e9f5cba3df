"""Writes what is generated in charts/raft: README.md, and copies of what stands elsewhere.

A chart is packed with what is in its own folder alone, so the alert rules, the dashboard and the
operator's permissions are copied into it.

`python tools/chart_files.py` writes them all.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "charts" / "raft"
COPIES = {
    "files/alerts.yaml": "docs/monitoring/alerts.yaml",
    "files/grafana-dashboard.json": "docs/monitoring/grafana-dashboard.json",
    "files/permissions.yaml": "operator/raft_operator/permissions.yaml",
}


@dataclass(frozen=True)
class Row:
    """One value that people may set; `default` as JSON."""

    key: str
    kind: str
    default: str
    meaning: str


def copies() -> dict[Path, str]:
    """What each copied file of the chart should hold."""
    return {CHART / name: (ROOT / source).read_text() for name, source in COPIES.items()}


def rows() -> list[Row]:
    """The values of the chart, in their order. Raises ValueError when one is not described."""
    text = (CHART / "values.yaml").read_text()
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    return list(_rows(node, text.splitlines(), yaml.safe_load(text), ""))


def _rows(
    node: yaml.MappingNode, lines: list[str], values: dict[str, Any], prefix: str
) -> Iterator[Row]:
    for key_node, value_node in node.value:
        value = values[key_node.value]
        key = prefix + key_node.value
        meaning = _comment_above(lines, key_node.start_mark.line)
        if meaning:
            yield Row(key, _kind(value), json.dumps(value, ensure_ascii=False), meaning)
        elif isinstance(value_node, yaml.MappingNode) and value:
            yield from _rows(value_node, lines, value, f"{key}.")
        else:
            raise ValueError(f"values.yaml: {key} has no comment that begins with `# --`")


def _comment_above(lines: list[str], line: int) -> str:
    """What the comment right above a line says, when it begins with `# --`."""
    said: list[str] = []
    while line > 0 and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        said.insert(0, lines[line].lstrip().lstrip("#").strip())
    text = " ".join(said)
    return text.removeprefix("--").strip() if text.startswith("--") else ""


def _kind(value: object) -> str:
    names = {bool: "boolean", int: "integer", str: "string", list: "list", dict: "map"}
    return names[type(value)]


def samples() -> list[Path]:
    return sorted((CHART / "samples").glob("*.yaml"))


def page() -> str:
    """README.md of the chart: README.head.md, the samples and the values."""
    head = (CHART / "README.head.md").read_text().rstrip("\n")
    lines = [head, "", "| file | what it makes |", "|---|---|"]
    for sample in samples():
        first = sample.read_text().split("\n\n", 1)[0].splitlines()
        said = " ".join(line.lstrip("# ") for line in first if line.startswith("#"))
        lines.append(f"| [{sample.name}](samples/{sample.name}) | {said} |")
    lines += ["", "## Values", "", "| value | type | default | meaning |", "|---|---|---|---|"]
    for row in rows():
        shown = row.default.replace("|", "\\|")
        lines.append(f"| `{row.key}` | {row.kind} | `{shown}` | {row.meaning} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    for path, text in copies().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (CHART / "README.md").write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
