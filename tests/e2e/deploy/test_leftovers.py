"""Nothing of the machines is left on this one, also when the tests are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.agents import wait_for
from tests.e2e.deploy.machines import ROOT

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("able")]

_TESTS = """
import time
from tests.e2e.deploy.machines import bare
made = bare("node-01")
made.machines["node-01"].run("systemd-run --quiet sleep 600")
print(made.namespace, made.home, flush=True)
time.sleep(600)
"""


def _left(namespace: str, home: str) -> Iterator[str]:
    """Whatever bears the site's name, or is in its directory."""
    for folder in ("/run/netns", "/sys/fs/cgroup", "/run/systemd/nspawn"):
        yield from (str(path) for path in Path(folder).glob(f"**/{namespace}*"))
    yield from (line for line in Path("/proc/mounts").read_text().splitlines() if home in line)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if home in words or namespace in words:
            yield f"{process.name}: {words}"
    if Path(home).exists():
        yield home


def test_of_tests_that_are_killed_nothing_is_left() -> None:
    tests = subprocess.Popen(
        [sys.executable, "-c", _TESTS], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert tests.stdout is not None
    with tests.stdout:
        namespace, home = tests.stdout.readline().split()
    found = list(_left(namespace, home))
    assert any("systemd-nspawn" in each for each in found), found
    os.kill(tests.pid, signal.SIGKILL)
    tests.wait()
    wait_for("all to be gone", lambda: None if list(_left(namespace, home)) else True, 60)
