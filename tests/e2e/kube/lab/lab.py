"""A Kubernetes of the tests' own: a control plane and five nodes, on hosts that are namespaces."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.agents import wait_for
from tests.e2e.kube.lab.containers import unpacked
from tests.e2e.kube.lab.control_plane import SERVICE_ADDRESS, ControlPlane
from tests.e2e.kube.lab.hosts import Groups, Host, system
from tests.e2e.kube.lab.images import images
from tests.e2e.kube.lab.kubernetes import programs
from tests.e2e.kube.lab.nodes import Node
from tests.kernel.netns import enter, ip, namespaces, plug

_NETWORK = "10.97"
DESK = "10.97.0.2"
_NODES = 5
_STORAGE = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {
        "name": "local",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
    },
    "provisioner": "kubernetes.io/no-provisioner",
    "volumeBindingMode": "WaitForFirstConsumer",
}


class Lab:
    """`hub`: the network namespace with the bridge between all hosts and the API server. `desk`:
    one that is neither a node's nor theirs, from which clients ask.
    """

    def __init__(self, home: Path, hub: str, desk: str, networks: dict[str, str]) -> None:
        self.home = home
        self.hub = hub
        self.desk = desk
        shared = (programs(), images())
        address = f"{_NETWORK}.0.1"
        self.control = ControlPlane(Host("control", hub, home / "control", *shared), address)
        self.nodes: dict[str, Node] = {}
        for number, (name, network) in enumerate(networks.items(), 1):
            host = Host(name, network, home / name, *shared)
            address, pods = f"{_NETWORK}.0.{10 + number}", f"{_NETWORK}.{100 + number}.0/24"
            self.nodes[name] = Node(host, address, pods, self.control)
        self._groups = Groups(f"rafttest-{os.getpid()}")

    def start(self) -> None:
        """All nodes are ready when this returns."""
        self.control.prepare(list(self.nodes))
        self._groups.make(*self.nodes)
        self.control.host.boot()
        with ThreadPoolExecutor() as pool:
            started = pool.submit(self.control.start)
            booted = [pool.submit(self._start, node) for node in self.nodes.values()]
            for each in (*booted, started):
                each.result()
        self.control.apply(_STORAGE, *(v for node in self.nodes.values() for v in node.volumes()))
        for node in self.nodes.values():
            wait_for(f"{node.name} to come up", node.is_known, timeout_s=120)
            self.wait_ready(node, "True")

    def _start(self, node: Node) -> None:
        node.prepare(f"/{self._groups.name}/{node.name}")
        node.host.boot()
        node.start()

    def unplug(self, name: str) -> None:
        """The other end of the cable of a node, or of the desk."""
        ip("-n", self.hub, "link", "set", f"to-{name}", "down")

    def plug_in(self, name: str) -> None:
        ip("-n", self.hub, "link", "set", f"to-{name}", "up")

    @contextmanager
    def deaf_desk(self) -> Iterator[None]:
        """Whoever is at the desk is cut off for the time of this block. The API server gives its
        connections up meanwhile; at the desk they look as if nothing had happened, for ever.
        """
        self.unplug("desk")
        command = [*enter(self.hub), "ss", "--kill", "--no-header", "dst", DESK]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        try:
            yield
        finally:
            self.plug_in("desk")

    def restart(self, node: Node) -> None:
        """A node that was off, with its disk; ready when this returns."""
        node.host.boot()
        node.start()
        self.wait_ready(node, "True")

    def wait_ready(self, node: Node, status: str) -> None:
        """Until the node's condition Ready is "True", "False" or "Unknown"."""
        self.control.kubectl(
            "wait", "node", node.name, f"--for=condition=Ready={status}", "--timeout=60s"
        )

    def close(self) -> None:
        for host in (*(node.host for node in self.nodes.values()), self.control.host):
            host.power_off()
        self._groups.remove()


def _wire(hub: str, desk: str, networks: dict[str, str]) -> None:
    """All on one bridge; the hub is the way to everything else, also to the pods of other nodes."""
    ip("-n", hub, "link", "add", "br0", "type", "bridge")
    ip("-n", hub, "addr", "add", f"{_NETWORK}.0.1/24", "dev", "br0")
    ip("-n", hub, "addr", "add", f"{SERVICE_ADDRESS}/32", "dev", "lo")
    ip("-n", hub, "link", "set", "br0", "up")
    plug(hub, desk, "to-desk", f"{DESK}/24")
    ip("-n", desk, "route", "add", "default", "via", f"{_NETWORK}.0.1")
    for number, (name, network) in enumerate(networks.items(), 1):
        plug(hub, network, f"to-{name}", f"{_NETWORK}.0.{10 + number}/24")
        ip("-n", network, "route", "add", "default", "via", f"{_NETWORK}.0.1")
        ip("-n", hub, "route", "add", f"{_NETWORK}.{100 + number}.0/24",
           "via", f"{_NETWORK}.0.{10 + number}")  # fmt: skip
    for network in (hub, *networks.values()):
        _forward(network)


def _forward(network: str) -> None:
    command = [*enter(network), "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]
    subprocess.run(command, check=True)


@contextmanager
def running() -> Iterator[Lab]:
    """A lab that runs; all of it is gone afterwards. When a test fails its logs stay, and their
    place is printed.
    """
    system(), programs(), unpacked()
    home = Path(tempfile.mkdtemp(prefix="raft-kube-"))
    names = [f"node-{number}" for number in range(1, _NODES + 1)]
    with namespaces("kube", "desk", *names) as (hub, desk, *networks):
        by_name = dict(zip(names, networks, strict=True))
        _wire(hub, desk, by_name)
        lab = Lab(home, hub, desk, by_name)
        try:
            lab.start()
            yield lab
        except BaseException:
            print(f"the lab's logs are kept in {home}")
            lab.close()
            raise
        lab.close()
    shutil.rmtree(home)
