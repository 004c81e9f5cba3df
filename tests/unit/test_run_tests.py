"""`make test` counts what pytest reports, and is right only when every part is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A tiny project with the same tools; its lint finds nothing wrong."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "run_tests.py").write_text((ROOT / "tools" / "run_tests.py").read_text())
    (tmp_path / "tools" / "lint.py").write_text("print('ok')\n")
    for part in ("unit", "sim"):
        (tmp_path / "tests" / part).mkdir(parents=True)
        (tmp_path / "tests" / part / "test_one.py").write_text("def test_one():\n    pass\n")
    return tmp_path


def make_test(checkout: Path, *options: str) -> tuple[int, str]:
    environment = os.environ | {"CI": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(
        [sys.executable, "tools/run_tests.py", "--rootdir=.", "--import-mode=importlib", *options],
        cwd=checkout,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def last_line(output: str) -> str:
    return re.sub(r" in [\d.]+s", "", output.splitlines()[-1])


def test_all_parts_are_added_up(checkout: Path) -> None:
    status, said = make_test(checkout)
    assert (status, last_line(said)) == (0, "==== 2 passed ====")
    assert "This machine could run everything." in said


@pytest.mark.parametrize("part", ["unit", "sim"])
def test_a_failure_in_any_part_fails(checkout: Path, part: str) -> None:
    (checkout / "tests" / part / "test_two.py").write_text("def test_two():\n    assert 0\n")
    status, said = make_test(checkout)
    assert (status, last_line(said)) == (1, "==== 1 failed, 2 passed ====")
    assert f"Not right: tests.{part}.test_two::test_two" in said


def test_a_file_that_can_not_be_imported_fails(checkout: Path) -> None:
    (checkout / "tests" / "sim" / "test_two.py").write_text("import no_such_module\n")
    status, said = make_test(checkout)
    assert status == 1
    assert "1 error ====" in last_line(said)


def test_what_could_not_run_is_listed_with_its_reason(checkout: Path) -> None:
    (checkout / "tests" / "unit" / "test_two.py").write_text(
        "import pytest\n\n@pytest.mark.skip(reason='no strace')\ndef test_two():\n    pass\n"
    )
    status, said = make_test(checkout)
    assert (status, last_line(said)) == (0, "==== 2 passed, 1 skipped ====")
    assert "This machine could not run:\n  tests.unit.test_two::test_two: no strace\n" in said


def test_a_lint_that_is_not_content_fails(checkout: Path) -> None:
    (checkout / "tools" / "lint.py").write_text("import sys\nsys.exit(1)\n")
    status, said = make_test(checkout)
    assert (status, last_line(said)) == (1, "==== 2 passed ====")
    assert "All tests passed, but the style" in said


def test_what_takes_long_runs_in_lanes_that_are_added_up(checkout: Path) -> None:
    (checkout / "pytest.ini").write_text("[pytest]\nmarkers = long: takes longer\n")
    systems = ("tests/e2e/deploy/test_one.py", "tests/e2e/kube/test_one.py")
    agents = ("tests/e2e/test_one.py", "tests/kernel/test_one.py", "tests/torture/test_one.py")
    for path in ("tests/e2e/test_containerfile.py", *systems, *agents):
        (checkout / path).parent.mkdir(parents=True, exist_ok=True)
        (checkout / path).write_text(
            "import pytest\n\n@pytest.mark.long\ndef test_one():\n    pass\n"
        )
    status, said = make_test(checkout, "--long")
    assert (status, last_line(said)) == (0, "==== 6 passed ====")
    (checkout / "tests/e2e/kube/test_two.py").write_text("import no_such_module\n")
    status, said = make_test(checkout, "--long")
    assert status == 1
    assert "Not right: " in said


def test_a_part_that_ends_with_an_error_beyond_its_tests_is_named(checkout: Path) -> None:
    (checkout / "tests" / "sim" / "conftest.py").write_text(
        "def pytest_sessionfinish(session):\n    session.exitstatus = 3\n"
    )
    status, said = make_test(checkout)
    assert (status, last_line(said)) == (1, "==== 2 passed, 1 error ====")
    assert "Not right: sim: pytest ended with status 3" in said
