"""Writes the README.md of each role of ansible/ from its argument_specs and defaults.

`python tools/role_docs.py` writes them all.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).resolve().parent.parent / "ansible" / "roles"


def page(role: Path) -> str:
    """The README of a role."""
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    defaults = yaml.safe_load((role / "defaults" / "main.yml").read_text()) or {}
    lines = [
        f"# {role.name}",
        "",
        "*Written by `make docs` from `meta/argument_specs.yml` and `defaults/main.yml`.*",
        "",
        "| tasks | what they do |",
        "|---|---|",
        *(f"| `{name}` | {spec['short_description']}. |" for name, spec in specs.items()),
        "",
        "| variable | type | default | meaning |",
        "|---|---|---|---|",
    ]
    options = next(iter(specs.values()))["options"]
    lines += [_row(name, option, defaults) for name, option in options.items()]
    return "\n".join(lines) + "\n"


def _row(name: str, option: dict[str, Any], defaults: dict[str, Any]) -> str:
    shown = json.dumps(defaults[name]).replace("|", "\\|")
    kind = option["type"] + (f" of {option['elements']}" if "elements" in option else "")
    return f"| `{name}` | {kind} | `{shown}` | {option['description'].strip()} |"


def roles() -> list[Path]:
    return sorted(path.parent.parent for path in ROLES.glob("*/meta/argument_specs.yml"))


def main() -> int:
    for role in roles():
        (role / "README.md").write_text(page(role))
    return 0


if __name__ == "__main__":
    sys.exit(main())
