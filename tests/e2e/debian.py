"""Roots of bare Debian 12 systems, each made once and kept in the user's cache directory."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path


def cache() -> Path:
    """Where images are kept: ~/.cache/raft-ebpf, or what XDG_CACHE_HOME says."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "raft-ebpf"


def once(target: Path, make: Callable[[Path], None]) -> Path:
    """The directory or file `target`, made by `make` under another name unless it is there; who
    comes meanwhile waits.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            scratch = target.with_name(f"{target.name}.partial")
            remove(scratch)
            make(scratch)
            scratch.rename(target)
    return target


def remove(path: Path) -> None:
    """A file or a whole directory, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def root(packages: Sequence[str], setup: str = "true") -> Path:
    """The directory that holds a system of these packages. Nobody writes there: what runs lies in a
    layer on top of it. `setup`: commands that finish it; the directory is their $1.
    """
    digest = hashlib.sha256("\n".join([*packages, setup]).encode()).hexdigest()[:12]
    return once(cache() / f"debian-12-{digest}", lambda into: _bootstrap(packages, setup, into))


def _bootstrap(packages: Sequence[str], setup: str, into: Path) -> None:
    run("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(packages)}",
        "bookworm", str(into))  # fmt: skip
    run("sh", "-c", setup, "setup", str(into))


def run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """The output of a program that must not fail; AssertionError with what it says."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command[0]}: {done.stderr[-4000:]}"
    return done.stdout
