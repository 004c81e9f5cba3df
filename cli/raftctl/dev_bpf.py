"""A BPF file system for `dev up --ebpf`: the machine's, or where it has none, one of the cluster's
own, which goes with `dev down`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from raftctl.errors import CommandError

_USUAL = Path("/sys/fs/bpf")
_FOLDER = "bpf"


def _is_mounted(path: Path) -> bool:
    """Whether a BPF file system is there; proc(5) has the form of the lines."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return False
    mounts = ((line.split()[4], line.partition(" - ")[2].split()[0]) for line in lines)
    return (str(path), "bpf") in mounts


def pin_base(folder: Path, tag: str, *, wanted: bool) -> str:
    """What the nodes' pin_dirs begin with. `folder`: of the cluster; `wanted`: it has the kernel
    part."""
    if not wanted or _is_mounted(_USUAL) or sys.platform != "linux" or os.geteuid() != 0:
        return f"{_USUAL}/raftdev-{tag}-"
    own = folder / _FOLDER
    own.mkdir(parents=True, exist_ok=True)
    return f"{own}/"


def mount(folder: Path) -> None:
    """Have the cluster's own one, if it has one. Raises CommandError."""
    own = folder / _FOLDER
    if not own.is_dir() or _is_mounted(own):
        return
    done = subprocess.run(  # noqa: S603
        ["mount", "-t", "bpf", "bpf", str(own)],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CommandError(
            f"A BPF file system can't be mounted: {done.stderr.strip() or done.returncode}",
            hint="Leave --ebpf out; in a container it may be forbidden",
        )


def unmount(folder: Path) -> None:
    """Take the cluster's own one away, with all pins. One that is in use goes once it is not."""
    own = folder / _FOLDER
    if _is_mounted(own):
        subprocess.run(["umount", "--lazy", str(own)], check=False)  # noqa: S603, S607
