"""The roots of the Debian systems that the playbooks set up.

What is in `debian` beyond systemd, sshd and Python is named here: the machines have no way to the
internet, so the one package that the playbooks would install, libbpf1, is there already.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from tests.e2e.debian import cache, once, root, run

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
# libstdc++6 is what apt needs, so it is on every Debian; one of the wheels needs it, too.
_ARM64_PACKAGES = ("python3", "python3-venv", "libc-bin", "coreutils", "bash", "libstdc++6")


def debian() -> Path:
    """The directory that holds a system that boots."""
    return root(_PACKAGES, _SETUP)


def arm64() -> Path:
    """The files of an arm64 system with Python. Its packages are unpacked and not set up, which
    takes no emulation and leaves nothing out that Python needs. Nobody writes there.
    """
    packages = ",".join(_ARM64_PACKAGES)
    digest = hashlib.sha256(packages.encode()).hexdigest()[:12]

    def make(into: Path) -> None:
        run("mmdebstrap", "--quiet", "--variant=extract", "--arch=arm64", "--skip=check/qemu",
            f"--include={packages}", "bookworm", str(into))  # fmt: skip

    return once(cache() / f"debian-12-arm64-{digest}", make)
