"""Network namespaces and veth pairs of the tests' own: made, entered and removed."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_CLONE_NEWNET = 0x40000000  # <linux/sched.h>
_PLACE = Path("/run/netns")
_libc = ctypes.CDLL(None, use_errno=True)


def ip(*arguments: str) -> str:
    """ip(8); AssertionError with what it says when it fails."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def tc(namespace: str, *arguments: str) -> str:
    """tc(8) inside a namespace."""
    done = subprocess.run(
        ["tc", "-n", namespace, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"tc {' '.join(arguments)}: {done.stderr}"
    return done.stdout


@contextmanager
def namespaces(*names: str) -> Iterator[list[str]]:
    """Namespaces with `lo` up; gone afterwards, and all interfaces in them too."""
    made = [f"rafttest-{os.getpid()}-{name}" for name in names]
    try:
        for full in made:
            ip("netns", "add", full)
            ip("-n", full, "link", "set", "lo", "up")
        yield made
    finally:
        _delete(made)


def _delete(made: Sequence[str]) -> None:
    """Those that are there, also behind one that stays."""
    problems = []
    for full in made:
        if not (_PLACE / full).exists():
            continue
        try:
            ip("netns", "delete", full)
        except AssertionError as error:
            problems.append(str(error))
    assert not problems, "\n".join(problems)


def connect(first: str, second: str, first_address: str, second_address: str) -> None:
    """A veth pair between two namespaces, called eth0 in both. Addresses as 10.9.0.1/24."""
    ip("-n", first, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", second)
    for namespace, address in ((first, first_address), (second, second_address)):
        ip("-n", namespace, "addr", "add", address, "dev", "eth0", "nodad")
        ip("-n", namespace, "link", "set", "eth0", "up")


def plug(hub: str, namespace: str, port: str, address: str) -> None:
    """An eth0 in the namespace whose other end is the port `port` of the hub's bridge br0."""
    # fmt: off
    ip("-n", hub, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace)
    # fmt: on
    ip("-n", hub, "link", "set", port, "master", "br0", "up")
    ip("-n", namespace, "addr", "add", address, "dev", "eth0")
    ip("-n", namespace, "link", "set", "eth0", "up")


def enter(namespace: str) -> list[str]:
    """In front of a command: run it in the namespace, under the same pid. Unlike `ip netns exec` it
    leaves /sys/fs/bpf where it is.
    """
    return ["nsenter", f"--net={_PLACE / namespace}", "--"]


def index_of(namespace: str, interface: str) -> int:
    return int(ip("-n", namespace, "-o", "link", "show", interface).partition(":")[0])


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """This thread, and threads that it starts, in the namespace."""
    with (
        Path("/proc/thread-self/ns/net").open() as outside,
        (_PLACE / namespace).open() as wanted,
    ):
        _enter(wanted.fileno())
        try:
            yield
        finally:
            _enter(outside.fileno())


def _enter(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def set_offloads(namespace: str, interface: str, on_or_off: str) -> None:
    """Segmentation and its reverse: with them packets of 64 KiB pass, without them MTUs."""
    words = [word for name in ("tso", "gso", "gro") for word in (name, on_or_off)]
    command = [*enter(namespace), "ethtool", "-K", interface, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
