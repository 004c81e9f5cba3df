"""Whether the machine itself stood still: a process that wants nothing but to be woken in time.

Nobody can lead who is not given a processor for longer than the others wait. A test that says "no
election happens" says so of a machine that runs, and asks this witness whether it did.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_SLEEPER = """
import select, sys, time
longest_s = 0.0
while True:
    asleep = time.monotonic()
    if select.select([sys.stdin], [], [], 0.005)[0]:
        break
    longest_s = max(longest_s, time.monotonic() - asleep - 0.005)
print(int(longest_s * 1000))
"""


class Witness:
    """`longest_stall_ms`: by how much its latest awakening was late, once all is over."""

    def __init__(self) -> None:
        self.longest_stall_ms = 0


@contextmanager
def watching() -> Iterator[Witness]:
    """A witness of what happens inside."""
    witness = Witness()
    command = [sys.executable, "-c", _SLEEPER]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield witness
        finally:
            said, _ = process.communicate()
            witness.longest_stall_ms = int(said or 0)
