"""The distribution holds what it should, and the lock files fit it and name no machine."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import raft_agent

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def pins(lock: Path) -> dict[str, str]:
    """Version by name."""
    found = re.findall(r"^([\w.-]+)==(\S+)", lock.read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def test_the_wheel_holds_the_packages_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
        programs = archive.read(entry_points).decode()
    roots = {name.split("/")[0] for name in names}
    information = f"raft_ebpf-{raft_agent.__version__}.dist-info"
    assert roots == {"raft_agent", "raftctl", "raft_operator", information}
    assert {"raft_agent/main.py", "raft_agent/py.typed", "raftctl/main.py"} <= set(names)
    assert {"raft_agent/http/page/index.html", "raft_agent/http/page/main.js"} <= set(names)
    assert "raft_agent/kernel/raft_tc.bpf.o" in names
    assert not [name for name in names if "__pycache__" in name]
    assert "raft-agent = raft_agent.main:main" in programs
    assert "raftctl = raftctl.main:main" in programs
    assert "raft-operator = raft_operator.main:main" in programs
    assert "raft_operator/permissions.yaml" in names


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_names_versions_and_hashes_and_no_machine(lock: Path) -> None:
    text = lock.read_text()
    for line in text.splitlines():
        assert re.match(r"#|    #|    --hash=sha256:[0-9a-f]{64}( \\)?$|[\w.-]+==[\w.!+]+", line)
        assert not re.search(r"https?:|file:|--(extra-)?index|--find-links|[ =\"]/", line)
    assert len(re.findall(r"^[\w.-]+==", text, re.MULTILINE)) == len(pins(lock))
    for block in re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]:
        assert "--hash=" in block


@pytest.mark.parametrize(
    ("lock", "requirements"),
    [
        ("runtime", PROJECT["dependencies"]),
        (
            "demo",
            PROJECT["dependencies"] + PROJECT["optional-dependencies"]["tui"],
        ),
        ("dev", PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]),
        ("deploy", PROJECT["dependencies"] + PROJECT["optional-dependencies"]["deploy"]),
        ("operator", PROJECT["dependencies"] + PROJECT["optional-dependencies"]["operator"]),
        *(
            (name, PROJECT["dependencies"] + PROJECT["optional-dependencies"][name])
            for name in ("bench", "fuzz", "audit")
        ),
    ],
)
def test_a_lock_satisfies_the_ranges_of_the_project(lock: str, requirements: list[str]) -> None:
    locked = pins(ROOT / "requirements" / f"{lock}.txt")
    for requirement in map(Requirement, requirements):
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("lock", ["runtime", "dev", "fuzz"])
def test_a_lock_asks_for_nothing_where_there_is_none(lock: str) -> None:
    wanted = PROJECT["dependencies"] + PROJECT["optional-dependencies"].get(lock, [])
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    for requirement in map(Requirement, wanted):
        if requirement.marker is not None:
            (condition,) = re.findall(rf"^{requirement.name}==\S+ ; (.*) \\$", text, re.MULTILINE)
            assert Marker(condition) == requirement.marker


def test_what_the_demo_installs_is_enough_for_every_command() -> None:
    runtime, demo = (pins(ROOT / "requirements" / f"{name}.txt") for name in ("runtime", "demo"))
    assert runtime.items() <= demo.items()
    assert "rich" in demo


def test_the_machine_from_which_playbooks_are_run_can_watch_the_cluster() -> None:
    assert "rich" in pins(ROOT / "requirements" / "deploy.txt")


def test_the_locks_agree_with_each_other() -> None:
    dev = pins(ROOT / "requirements" / "dev.txt")
    for lock in LOCKS:
        locked = pins(lock)
        assert {name: locked[name] for name in locked.keys() & dev.keys()}.items() <= dev.items()
        assert lock.stem in ("bench", "fuzz", "audit") or locked.keys() <= dev.keys()


def test_what_a_small_board_installs_is_small() -> None:
    brought_by_aiohttp = {
        "aiohappyeyeballs",
        "aiosignal",
        "attrs",
        "frozenlist",
        "idna",
        "multidict",
        "propcache",
        "typing-extensions",
        "yarl",
    }
    brought_by_cryptography = {"cffi", "pycparser"}
    brought = brought_by_aiohttp | brought_by_cryptography
    assert pins(ROOT / "requirements" / "runtime.txt").keys() == brought | {
        canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]
    }


def test_an_agent_without_http_imports_nothing_of_it() -> None:
    """Small boards have little memory; the command line is to start quickly."""
    command = (
        "import sys, raft_agent.main, raft_agent.runtime, raftctl.main, raftctl.top\n"
        "print([name for name in ('aiohttp', 'cryptography', 'prometheus_client', 'rich')\n"
        "       if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_what_is_installed_is_used() -> None:
    """Every kilobyte is downloaded and kept by small boards."""
    sources = "".join(
        file.read_text() for tree in ("node_agent", "cli") for file in (ROOT / tree).rglob("*.py")
    )
    imported = set(re.findall(r"^ *(?:import|from) (\w+)", sources, re.MULTILINE))
    needed = {Requirement(text).name.replace("-", "_") for text in PROJECT["dependencies"]}
    assert needed - imported == set()


def imported(file: Path) -> set[str]:
    """The modules that a file imports, by the names of their outermost packages."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_what_is_imported_is_declared_also_where_something_else_brings_it() -> None:
    """What comes with something else today need not do so tomorrow."""
    folders = (
        "node_agent",
        "cli",
        "operator",
        "tests",
        "tools",
        "benchmarks",
        "examples",
        "ansible",
    )
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    assert len(files) > 500
    optional = [text for extra in PROJECT["optional-dependencies"].values() for text in extra]
    declared = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    declared |= {canonicalize_name(Requirement(text).name) for text in optional}
    installed = packages_distributions()
    undeclared = {
        f"{name} in {file.relative_to(ROOT)}"
        for file in files
        for name in imported(file) - sys.stdlib_module_names
        if name in installed and not declared & {canonicalize_name(d) for d in installed[name]}
    }
    assert undeclared == set()


def test_help_lists_every_target_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):(?!=)", makefile, re.MULTILINE))
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = dict(re.findall(r"^  make (\S+) +(\S.*)$", done.stdout, re.MULTILINE))
    assert listed.keys() == targets
    assert {"demo", "demo-down", "test", "lint", "sim", "clean"} <= targets


@pytest.mark.parametrize("script", [*sorted((ROOT / "tools").glob("*.sh")), ROOT / ".ci/run"])
def test_a_shell_script_is_executable_and_parses(script: Path) -> None:
    assert script.stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
