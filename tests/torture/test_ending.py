"""Whoever ends a run of torture is left with nothing of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.agents import wait_for
from tests.torture.world import ROOT, missing

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]


def _of_its_own(home: Path) -> list[str]:
    """Commands of processes that work in this directory, and what is mounted there."""
    found = [
        line.split()[1]
        for line in Path("/proc/mounts").read_text().splitlines()
        if str(home) in line
    ]
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = place.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(home) in command:
            found.append(command)
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_ended_leaves_no_process_no_mount_and_no_namespace(
    number: signal.Signals, tmp_path: Path
) -> None:
    run = subprocess.Popen(
        [sys.executable, "-m", "tests.torture", "--minutes=2", "--run-minutes=2"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(
            "clients to work",
            lambda: True if any(tmp_path.glob("*/history.jsonl")) else None,
            60,
        )
        run.send_signal(number)
        assert run.wait(60) != 0
    finally:
        run.terminate()
        run.wait(60)
    assert _of_its_own(tmp_path) == []
    spaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    assert f"rafttest-{run.pid}-" not in spaces.stdout
