"""With CI=true a test that could not run is a failure, unless a line with a reason allows it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]

EXAMPLE = """
import pytest

def test_that_runs():
    pass

@pytest.mark.skipif(True, reason="no strace here")
@pytest.mark.parametrize("value", [1])
def test_that_can_not(value):
    pass

@pytest.mark.xfail(reason="known")
def test_that_fails_as_expected():
    assert False
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(TESTS / "conftest.py", tmp_path)
    (tmp_path / "allowed-skips.txt").write_text("# nothing\n")
    (tmp_path / "test_example.py").write_text(EXAMPLE)
    return tmp_path


def run(folder: Path, ci: str) -> tuple[int, str]:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider"),
            *("-c", os.devnull, f"--rootdir={folder}", folder),
        ],
        env=os.environ | {"CI": ci, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_elsewhere_a_skip_is_a_skip(folder: Path) -> None:
    status, said = run(folder, ci="")
    assert status == 0
    assert "1 passed, 1 skipped, 1 xfailed" in said


def test_in_ci_a_skip_fails_with_its_reason(folder: Path) -> None:
    status, said = run(folder, ci="true")
    assert status == 1
    assert "1 passed, 1 xfailed, 1 error" in said  # pytest puts what fails before the test so
    assert "test_example.py::test_that_can_not[1] could not run: Skipped: no strace here" in said


def test_in_ci_a_module_that_skips_itself_fails(folder: Path) -> None:
    (folder / "test_module.py").write_text(
        "import pytest\npytest.skip('no kernel', allow_module_level=True)\n"
    )
    (folder / "test_example.py").unlink()
    status, said = run(folder, ci="true")
    assert status != 0
    assert "test_module.py could not run: Skipped: no kernel" in said


@pytest.mark.parametrize("pattern", ["test_example.py::test_that_can_not[1]", "*::test_that_can*"])
def test_a_line_with_a_reason_allows_it(folder: Path, pattern: str) -> None:
    (folder / "allowed-skips.txt").write_text(f"{pattern}  containers may not trace\n")
    status, said = run(folder, ci="true")
    assert (status, "1 passed, 1 skipped, 1 xfailed" in said) == (0, True)


def test_a_line_without_a_reason_is_refused(folder: Path) -> None:
    (folder / "allowed-skips.txt").write_text("*\n")
    status, said = run(folder, ci="true")
    assert status == 4  # pytest's usage error
    assert "allowed-skips.txt:1: * is given no reason" in said
