"""Real agents, each in a network namespace of its own, joined by a bridge."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from raft_agent.api import protocol
from tests.e2e.agents import Agent, LocalCluster, put_away, wait_for
from tests.kernel import netns

PORT = 5555
# For tests that are not about elections: a busy machine is to start none.
PATIENT = "election_timeout_min_ms = 1000\nelection_timeout_max_ms = 2000"


class IsolatedCluster(LocalCluster):
    """`namespaces[name]` is a node's; its address there is `addresses[name]`. `hub` is the
    namespace with the bridge; guests have a namespace and an address there, and no agent. `fresh`
    nodes are not started and know nobody.
    """

    def __init__(
        self,
        directory: Path,
        hub: str,
        namespaces: dict[str, str],
        guests: dict[str, str],
        *,
        ebpf: str,
        interface: str,
        options: tuple[str, ...],
        fresh: Sequence[str],
        wrapper: Sequence[str],
        timing: str,
        tls: str,
    ) -> None:
        self._fresh = fresh
        self.hub = hub
        self.namespaces = namespaces
        self.guests = guests
        self.addresses = {name: f"10.9.0.{n}" for n, name in enumerate(namespaces, 1)}
        self.guest_addresses = {name: f"10.9.0.{n}" for n, name in enumerate(guests, 241)}
        self.agents = {}
        for name, namespace in namespaces.items():
            home = directory / name
            peers = "".join(
                f'[[peers]]\nid = "{other}"\naddress = "{address}:{PORT}"\n'
                for other, address in self.addresses.items()
                if other != name and name not in fresh and other not in fresh
            )
            config = (
                f'[server]\nnode_id = "{name}"\nlisten_addr = "{self.addresses[name]}:{PORT}"\n'
                f'data_dir = "{home / "data"}"\nipc_socket = "{home / "ipc.sock"}"\n'
                f'[ebpf]\nenabled = true\ninterface = "{interface}"\n{ebpf}\n'
                f"[timing]\n{timing}\n{tls.replace('NAME', name)}\n{peers}"
            )
            agent = Agent(name, home, config, [*netns.enter(namespace), *wrapper])
            agent.options = options
            self.agents[name] = agent

    def start(self) -> None:
        for agent in self:
            if agent.name not in self._fresh:
                agent.start()

    def hand_over(self, user: int) -> None:
        """Agents run as `user`, to whom their files belong then; for before they start."""
        for directory in {agent.directory.parent for agent in self}:
            for path in (directory, *directory.rglob("*")):
                os.chown(path, user, user)

    def wait_attached(self) -> None:
        for agent in self:
            if agent.process is not None:
                wait_for_state(agent, "attached")


def ebpf(agent: Agent) -> protocol.EbpfStatus | None:
    status = agent.status()
    return None if status is None else status.ebpf


def wait_for_state(agent: Agent, state: str) -> protocol.EbpfStatus:
    """Until the kernel part of an agent is so."""

    def look() -> protocol.EbpfStatus | None:
        found = ebpf(agent)
        return found if found is not None and found.state == state else None

    return wait_for(f"the kernel part of {agent.name} to be {state}", look)


def kernel(agent: Agent) -> protocol.KernelResult:
    answer = agent.ask(protocol.Kernel(1))
    assert isinstance(answer, protocol.KernelResult)
    return answer


@contextmanager
def isolated_cluster(
    nodes: int = 3,
    *,
    ebpf: str = "",
    interface: str = "auto",
    options: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
    guests: Sequence[str] = (),
    fresh: Sequence[str] = (),
    wrapper: Sequence[str] = (),
    timing: str = PATIENT,
    tls: str = "",
    start: bool = True,
) -> Iterator[IsolatedCluster]:
    """A running cluster; processes, namespaces and files are gone afterwards. `tls`: [tls] of
    raft.toml, in which NAME stands for each node's own.
    """
    names = [f"node-{number:02}" for number in range(1, nodes + 1)]
    directory = Path(tempfile.mkdtemp(prefix="raft-kernel-"))
    with netns.namespaces("hub", *names, *guests) as (hub, *own):
        netns.ip("-n", hub, "link", "add", "br0", "type", "bridge")
        netns.ip("-n", hub, "link", "set", "br0", "up")
        cluster = IsolatedCluster(
            directory,
            hub,
            dict(zip(names, own[:nodes], strict=True)),
            dict(zip(guests, own[nodes:], strict=True)),
            ebpf=ebpf,
            interface=interface,
            options=options,
            fresh=fresh,
            wrapper=wrapper,
            timing=timing,
            tls=tls,
        )
        addresses = {**cluster.addresses, **cluster.guest_addresses}
        for name, namespace in {**cluster.namespaces, **cluster.guests}.items():
            netns.plug(hub, namespace, name, f"{addresses[name]}/24")
        for agent in cluster:
            agent.environment.update(environment or {})
        with put_away(cluster, directory):
            if start:
                cluster.start()
            yield cluster
