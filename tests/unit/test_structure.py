"""What the layout of the checkout must keep to, so that nothing shadows the standard library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Folders in the root that are on sys.path's way when Python starts there, and are no packages.
FOLDERS = ("operator", "ansible", "cli", "node_agent", "bpf", "charts", "lima", "docs", "tools")


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_of_the_root_is_no_package(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists()


@pytest.mark.parametrize("name", ["operator", "ansible"])
def test_no_test_folder_has_the_name_of_a_module(name: str) -> None:
    assert not (ROOT / "tests" / name).exists()


def test_the_standard_library_is_found_from_the_root() -> None:
    command = "import operator; print(operator.itemgetter(1)('ab'))"
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "b\n"


def test_no_file_of_ours_has_grown_too_long_to_read() -> None:
    lengths = {
        str(file.relative_to(ROOT)): len(file.read_text().splitlines())
        for folder in ("node_agent", "cli", "operator", "tools")
        for file in (ROOT / folder).rglob("*.py")
    }
    assert {name: length for name, length in lengths.items() if length > 520} == {}
