"""What the machines need of this one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session", autouse=True)
def _able() -> None:
    """Skips where machines can't be booted, with the reason."""
    if os.geteuid() != 0:
        pytest.skip("booting machines takes root")
    for program in ("mmdebstrap", "systemd-nspawn", "ssh", "ssh-keygen"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (tools/setup.sh machines installs it)")


@pytest.fixture(scope="session", autouse=True)
def _bundle(_able: None) -> None:
    """The wheels come from the internet, which the test's network does not reach."""
    machine = os.uname().machine
    command = [sys.executable, str(ROOT / "tools" / "bundle.py"), f"--machine={machine}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
