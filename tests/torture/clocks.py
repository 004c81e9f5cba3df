"""Agents' own clocks: a library is preloaded that shifts what they read (clock_shift.c).

Not libfaketime: with it a timed wait on a condition never returns in Python 3.11 on Debian 12, and
it can't set the wall's clock alone and let all clocks drift at once.
"""

from __future__ import annotations

import mmap
import struct
import subprocess
import time
from pathlib import Path

_SOURCE = Path(__file__).with_name("clock_shift.c")
_FILE = struct.Struct("=qqq")
_WALL = struct.Struct("=q")


def build(directory: Path) -> Path:
    """The library, made for this machine."""
    library = directory / "clock_shift.so"
    command = ["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror"]
    done = subprocess.run(
        [*command, "-o", str(library), str(_SOURCE)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return library


class Clock:
    """Of one node. `rate_ppm`: by how much it runs too fast, for the whole run."""

    def __init__(self, file: Path, library: Path, rate_ppm: int) -> None:
        self.rate_ppm = rate_ppm
        self.wall_s = 0.0
        origin_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        file.write_bytes(_FILE.pack(0, rate_ppm, origin_ns))
        with file.open("r+b") as opened:
            self._mapped = mmap.mmap(opened.fileno(), _FILE.size)
        self.environment = {"LD_PRELOAD": str(library), "RAFT_TORTURE_CLOCK": str(file)}

    def set_wall(self, ahead_s: float) -> None:
        """The clock on the wall shows so much more than the true time, from now on."""
        self.wall_s = ahead_s
        self._mapped[: _WALL.size] = _WALL.pack(int(ahead_s * 1e9))
