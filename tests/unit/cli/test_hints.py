"""Errors are for people: each says what to do next, not only what happened."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import raft_agent.runtime
import raftctl

ROOMS = (Path(raftctl.__file__).parent, Path(raft_agent.runtime.__file__).parent)
ERRORS = {"CommandError", "IncompleteError", "Failure"}
_HINT_AT = 2
# Whoever asks for what is not there has been answered.
_ANSWERS = {"key_not_found", "KEY_NOT_FOUND"}
# Output that can't be written is told in one line: test_complaints.
_ONE_LINE = {"framework.py": "CommandError(error)"}
MODULES = [path for room in ROOMS for path in sorted(room.glob("*.py"))]


def hintless(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        if node.func.id not in ERRORS or len(node.args) > _HINT_AT:
            continue
        words = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
        words |= {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
        if not any(given.arg == "hint" for given in node.keywords) and not words & _ANSWERS:
            yield f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("path", MODULES, ids=[path.stem for path in MODULES])
def test_every_error_says_what_to_do_next(path: Path) -> None:
    found = list(hintless(ast.parse(path.read_text())))
    allowed = _ONE_LINE.get(path.name)
    assert not [call for call in found if allowed is None or not call.endswith(f": {allowed}")]


def test_an_error_without_a_hint_is_seen() -> None:
    assert len(list(hintless(ast.parse("raise CommandError('no')\nFailure(C, 'no')")))) == 2
    assert not list(hintless(ast.parse("raise CommandError('no', hint='yes')")))
