"""Whoever ends a run of torture is left with nothing of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.e2e.agents import wait_for
from tests.torture.world import ROOT, missing

needs_torture = pytest.mark.skipif(missing() is not None, reason=str(missing()))
RUN = ("tests.torture", "--minutes=2", "--run-minutes=2")
TEST = ("pytest", "-m", "long", "-k", "chain_of_three", "tests/torture/test_partial_links.py")
CLEANS_UP = """
from tests.torture.ending import end_in_order
end_in_order()
try:
    print("works", flush=True)
    input()
finally:
    print("cleans up", flush=True)
    print(input(), flush=True)
"""


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_no_second_signal_breaks_off_the_clean_up(
    first: signal.Signals, second: signal.Signals
) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", CLEANS_UP], cwd=ROOT, text=True, stdin=pipe, stdout=pipe, stderr=pipe
    ) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        assert run.stdout.readline() == "works\n"
        run.send_signal(first)
        assert run.stdout.readline() == "cleans up\n"
        run.send_signal(second)
        # It has not ended: it takes in and answers.
        run.stdin.write("cleaned up\n")
        run.stdin.flush()
        assert run.stdout.readline() == "cleaned up\n"
        assert run.wait(60) != 0


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


@pytest.mark.long
@needs_torture
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("words", [RUN, TEST], ids=["run", "pytest"])
def test_a_run_that_is_ended_leaves_no_process_no_mount_and_no_namespace(
    words: Sequence[str], number: signal.Signals, tmp_path: Path
) -> None:
    run = subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(
            "agents to work",
            lambda: True if any(tmp_path.glob("*/node-03/disk/data/identity")) else None,
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
