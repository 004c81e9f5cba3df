"""examples/deny-list, as its README says: one key stops a guest's packets on three nodes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "deny-list"


@pytest.mark.long
def test_one_key_stops_packets_on_three_nodes_and_one_that_is_cut_off_does_as_declared() -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLE / "run.py"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith("* ")]
    assert told[-1] == "* 203.0.113.7 reaches all three again"
    assert "* 203.0.113.7 reaches none of them: their kernels drop its packets" in told


def test_the_program_is_short() -> None:
    """README.md says so."""
    assert len((EXAMPLE / "deny.bpf.c").read_text().splitlines()) == 54
