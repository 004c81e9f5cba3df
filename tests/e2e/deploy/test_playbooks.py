"""The playbooks keep to what ansible-lint and yamllint ask for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ANSIBLE = Path(__file__).resolve().parents[3] / "ansible"
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.long


@pytest.mark.parametrize("command", [("yamllint", "--strict", "."), ("ansible-lint", "--nocolor")])
def test_the_linters_have_nothing_to_say(command: tuple[str, ...]) -> None:
    done = subprocess.run(
        [BIN / command[0], *command[1:]],
        cwd=ANSIBLE,
        env={"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(Path.home())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
