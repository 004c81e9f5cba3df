"""The root of the Debian systems that the playbooks set up.

What is in it beyond systemd, sshd and Python is named here: the machines have no way to the
internet, so the one package that the playbooks would install, libbpf1, is there already.
"""

from __future__ import annotations

from pathlib import Path

from tests.e2e.debian import root

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


def debian() -> Path:
    """The directory that holds the system."""
    return root(_PACKAGES, _SETUP)
