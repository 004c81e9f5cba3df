"""Network namespaces for `dev up --isolated`: every node with an address and interfaces of its own.

A hub namespace holds a bridge; each node's namespace has `eth0`, whose other end is in the bridge.
Nothing appears in the machine's own network, so nothing there can clash or has to be undone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from raftctl.dev_cluster import Node, isolated_address
from raftctl.errors import CommandError
from raftctl.reach import as_root

_BRIDGE = "br0"


def check_possible() -> None:
    """Raises CommandError with the reason when namespaces can't be made here."""
    if sys.platform != "linux":
        raise CommandError("--isolated needs Linux network namespaces", hint="Leave --isolated out")
    if os.geteuid() != 0:
        raise CommandError(
            "--isolated needs root: it makes network namespaces",
            hint=f"{as_root('raftctl dev up --isolated')}, or leave --isolated out",
        )
    for tool, package in (("ip", "iproute2"), ("nsenter", "util-linux")):
        if shutil.which(tool) is None:
            raise CommandError(f"--isolated needs {tool}", hint=f"apt-get install {package}")


def _prefix(tag: str) -> str:
    return f"raftdev-{tag}-"


def namespace(tag: str, name: str) -> str:
    return _prefix(tag) + name


def inside(name: str, command: list[str]) -> list[str]:
    """The command, run in the namespace, under the same pid. nsenter and not `ip netns exec`,
    because the latter mounts a new /sys, without the /sys/fs/bpf that all nodes share.
    """
    return ["nsenter", f"--net=/run/netns/{name}", "--", *command]


def _ip(*arguments: str) -> str:
    done = subprocess.run(  # noqa: S603
        ["ip", *arguments],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CommandError(
            f"ip {' '.join(arguments)}: {done.stderr.strip() or done.returncode}",
            hint="Network namespaces may be forbidden here, as in most containers",
        )
    return done.stdout


def _existing(tag: str) -> list[str]:
    names = [line.split()[0] for line in _ip("netns", "list").splitlines() if line.strip()]
    return [name for name in names if name.startswith(_prefix(tag))]


def create(tag: str, nodes: list[Node]) -> None:
    """Makes what is missing; after a reboot that is everything. Undoes it all when a step fails."""
    existing = _existing(tag)
    try:
        hub = namespace(tag, "hub")
        if hub not in existing:
            _ip("netns", "add", hub)
            _ip("-n", hub, "link", "add", _BRIDGE, "type", "bridge")
            _ip("-n", hub, "link", "set", _BRIDGE, "up")
        for node in nodes:
            if namespace(tag, node.name) not in existing:
                _create_node(hub, namespace(tag, node.name), node)
    except CommandError:
        if not existing:
            remove(tag)
        raise


def _create_node(hub: str, own: str, node: Node) -> None:
    address = isolated_address(node).rpartition(":")[0]
    _ip("netns", "add", own)
    _ip("-n", own, "link", "set", "lo", "up")
    # fmt: off
    _ip("-n", hub, "link", "add", node.name, "type", "veth", "peer", "name", "eth0", "netns", own)
    # fmt: on
    _ip("-n", hub, "link", "set", node.name, "master", _BRIDGE, "up")
    _ip("-n", own, "addr", "add", f"{address}/24", "dev", "eth0")
    _ip("-n", own, "link", "set", "eth0", "up")


def remove(tag: str) -> list[str]:
    """Deletes all namespaces of this cluster; their interfaces go with them. Their names."""
    names = _existing(tag)
    for name in names:
        _ip("netns", "delete", name)
    return names
