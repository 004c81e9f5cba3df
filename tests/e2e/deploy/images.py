"""The roots of Debian 12 systems, made once and kept in the user's cache directory.

What is in `debian` beyond systemd, sshd and Python is named here: the machines have no way to the
internet, so the one package that the playbooks would install, libbpf1, is there already.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

_PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "openssh-server",
    "sudo",
    "python3",
    "iproute2",
    "kmod",
    "libbpf1",
    "libfaketime",
)
_SETUP = """
set -eu
systemctl --root="$1" enable systemd-networkd ssh > /dev/null 2>&1
chroot "$1" useradd --create-home --shell /bin/sh admin
echo 'admin ALL=(ALL) NOPASSWD: ALL' > "$1/etc/sudoers.d/admin"
chmod 0440 "$1/etc/sudoers.d/admin"
echo 'UseDNS no' > "$1/etc/ssh/sshd_config.d/test.conf"
rm -f "$1/etc/resolv.conf" "$1/etc/hostname" "$1/etc/machine-id"
: > "$1/etc/machine-id"
""".strip()
_ARM64_PACKAGES = ("python3", "python3-venv", "libc-bin", "coreutils", "bash", "iproute2")


def cache() -> Path:
    """Where images are kept: ~/.cache/raft-ebpf, or what XDG_CACHE_HOME says."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "raft-ebpf"


def debian() -> Path:
    """A system that boots. Nobody writes there: machines lie on top of it."""

    def build(root: Path) -> None:
        _run("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(_PACKAGES)}",
             "bookworm", str(root))  # fmt: skip
        _run("sh", "-c", _SETUP, "setup", str(root))

    return _cached("debian-12", [*_PACKAGES, _SETUP], build)


def arm64() -> Path:
    """The files of an arm64 system with Python. Its packages are unpacked and not set up, which
    takes no emulation and leaves nothing out that Python needs. Nobody writes there."""

    def build(root: Path) -> None:
        _run("mmdebstrap", "--quiet", "--variant=extract", "--arch=arm64", "--skip=check/qemu",
             f"--include={','.join(_ARM64_PACKAGES)}", "bookworm", str(root))  # fmt: skip

    return _cached("debian-12-arm64", list(_ARM64_PACKAGES), build)


def _cached(name: str, inputs: list[str], build: Callable[[Path], None]) -> Path:
    """The directory for these inputs, built unless it is there. Others wait meanwhile."""
    digest = hashlib.sha256("\n".join(inputs).encode()).hexdigest()[:12]
    root = cache() / f"{name}-{digest}"
    root.parent.mkdir(parents=True, exist_ok=True)
    with (root.parent / f"{root.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            scratch = root.with_name(f"{root.name}.partial")
            shutil.rmtree(scratch, ignore_errors=True)
            build(scratch)
            scratch.rename(root)
    return root


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command[0]}: {done.stderr}"
