"""The table of rooms in docs/architecture.md says what the code imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
AGENT = ROOT / "node_agent" / "raft_agent"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
ROWS = re.findall(r"^\| `([\w/.]+)` \| [^|]+ \| ([^|]+) \|$", PAGE, re.MULTILINE)
PLACES = {
    "cli/raftctl/": ROOT / "cli" / "raftctl",
    "operator/raft_operator/": ROOT / "operator" / "raft_operator",
}


def name_of(room: str) -> str:
    return room.rstrip("/").removesuffix(".py")


def imports(room: str) -> set[str]:
    """What the room takes from others of the agent, as dotted names below raft_agent."""
    place = PLACES.get(room, AGENT / room)
    files = place.rglob("*.py") if place.is_dir() else [place]
    own = f"{name_of(room)}."
    return {
        name
        for file in files
        for name in _imported(ast.parse(file.read_text()))
        if not f"{name}.".startswith(own) and name != "__version__"
    }


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "raft_agent":
                yield rest


def covers(named: str, found: str) -> bool:
    return f"{found}.".startswith(f"{named}.")


def named_by(room: str, cell: str) -> set[str]:
    if cell == "all of the above":
        above = [other for other, _ in ROWS]
        return {name_of(other) for other in above[: above.index(room)]}
    return set(re.findall(r"`([\w.]+)`", cell))


def test_the_table_has_every_room() -> None:
    rooms = {f"{path.parent.name}/" for path in AGENT.glob("*/__init__.py")}
    rooms |= {path.name for path in AGENT.glob("*.py")} - {"__init__.py"}
    assert {room for room, _ in ROWS} == rooms | PLACES.keys()


@pytest.mark.parametrize(("room", "cell"), ROWS, ids=[room for room, _ in ROWS])
def test_a_room_imports_what_the_table_names_and_nothing_else(room: str, cell: str) -> None:
    found, named = imports(room), named_by(room, cell)
    assert {name for name in found if not any(covers(other, name) for other in named)} == set()
    if cell != "all of the above":
        assert {other for other in named if not any(covers(other, name) for name in found)} == set()
