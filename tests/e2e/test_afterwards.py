"""What the tests have taken away after them goes however they end."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.afterwards import Afterwards
from tests.e2e.agents import wait_for

ROOT = Path(__file__).resolve().parents[2]
_SCRIPT = 'echo "$word" > "$1"'
_HELD = """
import signal, sys, time
from tests.e2e.afterwards import Afterwards
# Where the tests run in the background of a shell, it is ignored from the start.
signal.signal(signal.SIGINT, signal.default_int_handler)
held = Afterwards(sys.argv[1], sys.argv[2])
print("up", flush=True)
time.sleep(600)
"""


def test_it_runs_when_it_is_called_and_hears_what_it_is_told(tmp_path: Path) -> None:
    Afterwards(_SCRIPT, str(tmp_path / "said")).run("keep")
    assert (tmp_path / "said").read_text() == "keep\n"


def test_a_script_that_fails_is_heard_of() -> None:
    with pytest.raises(AssertionError, match="no way"):
        Afterwards("echo no way >&2; exit 1").run()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_runs_when_its_process_is_gone(tmp_path: Path, number: int) -> None:
    said = tmp_path / "said"
    process = subprocess.Popen(
        [sys.executable, "-c", _HELD, _SCRIPT, str(said)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "up\n"
    process.send_signal(number)
    process.wait()
    wait_for("the script to run", lambda: (said.exists() and said.read_text()) or None)
    assert said.read_text() == "gone\n"
