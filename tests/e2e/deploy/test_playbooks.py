"""The playbooks keep to what ansible-lint asks for in its strictest profile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ANSIBLE = Path(__file__).resolve().parents[3] / "ansible"
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.long


def test_the_linter_has_nothing_to_say() -> None:
    done = subprocess.run(
        [BIN / "ansible-lint", "--nocolor"],
        cwd=ANSIBLE,
        env={"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(Path.home())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
