"""Nothing makes objects or runs programs from bytes: no pickle, no eval, no yaml.load, no shell.

ruff's S rules hold most of it; this is what they let pass: other names for the same, and what comes
in by way of an import.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("node_agent", "cli", "operator", "tools", "benchmarks", "examples", "tests")
FILES = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]

MODULES = {
    "cPickle",
    "cloudpickle",
    "code",
    "codeop",
    "dill",
    "ftplib",
    "jsonpickle",
    "marshal",
    "pickle",
    "shelve",
    "telnetlib",
    "xmlrpc",
}
BUILTINS = {"__import__", "eval", "exec"}
# What is called as an attribute of these modules.
CALLS = {
    "asyncio": {"create_subprocess_shell"},
    "os": {"popen", "system", "execl", "execle", "execlp", "spawnl", "spawnlp"},
    "pty": {"spawn"},
    "subprocess": {"getoutput", "getstatusoutput"},
    "tempfile": {"mktemp"},
    "yaml": {"full_load", "load", "load_all", "unsafe_load"},
}
# The mutator tries changed code of the core, which it has compiled itself.
ALLOWED = {("tests/sim/mutant_trial.py", "exec")}


def dangers(source: str) -> Iterator[str]:
    """The names of what a module has that nothing here should need."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module.split(".")[0] in MODULES:
                yield node.module
            names = CALLS.get(node.module, set())
            yield from (f"{node.module}.{a.name}" for a in node.names if a.name in names)
        elif isinstance(node, ast.Call):
            yield from _called(node)


def _called(node: ast.Call) -> Iterator[str]:
    called = node.func
    if isinstance(called, ast.Name) and called.id in BUILTINS:
        yield called.id
    if (
        isinstance(called, ast.Attribute)
        and isinstance(called.value, ast.Name)
        and called.attr in CALLS.get(called.value.id, set())
    ):
        yield f"{called.value.id}.{called.attr}"
    for keyword in node.keywords:
        if keyword.arg == "shell" and not (
            isinstance(keyword.value, ast.Constant) and keyword.value.value is False
        ):
            yield "shell="


def test_no_module_makes_objects_or_runs_programs_from_bytes() -> None:
    assert len(FILES) > 200
    found = {
        (str(file.relative_to(ROOT)), danger)
        for file in FILES
        for danger in dangers(file.read_text())
    }
    assert found - ALLOWED == set()
    assert found >= ALLOWED, "an exception that nobody needs any more"


@pytest.mark.parametrize(
    ("source", "danger"),
    [
        ("import pickle", "pickle"),
        ("from marshal import loads", "marshal"),
        ("eval('1')", "eval"),
        ("import yaml\nyaml.load(x, yaml.SafeLoader)", "yaml.load"),
        ("from os import system", "os.system"),
        ("subprocess.run(x, shell=True)", "shell="),
        ("subprocess.run(x, shell=y)", "shell="),
    ],
)
def test_the_search_finds_them(source: str, danger: str) -> None:
    assert list(dangers(source)) == [danger]


def test_ruffs_rules_of_security_hold_for_the_whole_checkout() -> None:
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert "S" in ruff["select"]
    assert {rule for rule in ruff["ignore"] if rule.startswith("S")} == {"S104"}
    for folder, rules in ruff["per-file-ignores"].items():
        assert folder.startswith("tests/") or not any(rule.startswith("S") for rule in rules)
