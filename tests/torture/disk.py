"""The disks of a run: plain directories, or a layer that can lose, fail, fill up and be slow."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path

from tests.e2e.agents import wait_for

ROOT = Path(__file__).resolve().parents[2]
# Other mount namespaces of the machine may keep the file system for longer.
_CLOSE_S = 0.5
_MOUNT_S = 120


class Disk:
    """`path` is where the agent's data directory lies. `can_fail`: it obeys commands."""

    can_fail = False

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self.seed = seed
        path.mkdir(parents=True)

    def command(self, _words: str) -> str:
        """Have the disk do something, as lossy_fs.py says; what it answers."""
        raise AssertionError("a plain disk does what it likes")

    def close(self) -> None:
        """The machine is switched off for good."""


class PlainDisk(Disk):
    pass


class LossyDisk(Disk):
    """A process with lossy_fs.py between the agent and the real disk."""

    can_fail = True

    def __init__(self, path: Path, seed: int) -> None:
        super().__init__(path, seed)
        store = path.with_name("store")
        store.mkdir()
        with path.with_name("disk.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.torture.lossy_fs", str(store), str(path)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        try:
            wait_for(
                f"{path} to be mounted",
                lambda: True if path.is_mount() else None,
                timeout_s=_MOUNT_S,
            )
        except BaseException:
            self.close()
            raise

    def command(self, words: str) -> str:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(words + "\n")
        process.stdin.flush()
        answer = process.stdout.readline().strip()
        assert answer, f"the disk {self.path} has ended: see disk.log beside it"
        assert not answer.startswith(("failed", "no such")), f"{self.path}: {answer}"
        return answer

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], check=False, capture_output=True)
        try:
            self._process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def lossy_disks_missing() -> str | None:
    """Why there are no lossy disks here, None when there are."""
    if importlib.util.find_spec("mfusepy") is None:
        return "mfusepy is missing, disks can't lose anything: tools/setup.sh dev"
    if find_library("fuse3") is None and find_library("fuse") is None:
        return "libfuse is missing, disks can't lose anything: apt-get install libfuse3-3"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return (
            "/dev/fuse can't be opened, disks can't lose anything: modprobe fuse, or give the "
            "container --device /dev/fuse"
        )
    return None
