"""What is taken away when the tests are through, and also when they end without a word."""

from __future__ import annotations

import subprocess


class Afterwards:
    """A shell script that runs once: when `run` is called, or when this process has ended, however
    that came about. It is in no process group of the terminal's and hears of no interrupt.

    `arguments` are its $1 and so on, and $word what `run` was given; "gone" when nobody called.
    """

    def __init__(self, script: str, *arguments: str) -> None:
        # No other child has this pipe (PEP 446), so it ends with this process.
        self._process = subprocess.Popen(
            ["sh", "-c", f"read -r word || word=gone\n{script}", "afterwards", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )

    def run(self, word: str = "") -> None:
        """Returns when it is done; AssertionError with what it says when it fails."""
        _, said = self._process.communicate(f"{word}\n")
        assert self._process.returncode == 0, said
