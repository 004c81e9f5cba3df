"""The kernel part beside the rest of the node: what it is told, and what it says in the API."""

from __future__ import annotations

import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from raft_agent.api import protocol
from raft_agent.api.host import Failure
from raft_agent.api.protocol import EbpfStatus, ErrorCode, FaultInfo
from raft_agent.config import Config
from raft_agent.config.values import split_address
from raft_agent.consensus.types import Configuration
from raft_agent.kernel.layout import Direction, Stat
from raft_agent.kernel.news import Tell
from raft_agent.kernel.part import KernelPart
from raft_agent.kernel.sight import Connection, Sight, loader
from raft_agent.runtime import kernel_report
from raft_agent.runtime.engine import Engine
from raft_agent.runtime.views import Views
from raft_agent.transport.transport import Transport

if TYPE_CHECKING:
    from raft_agent.http.source import KernelReading


class KernelSide:
    """Nothing at all unless `ebpf.enabled`."""

    def __init__(
        self, config: Config, transport: Transport, engine: Engine, views: Views, tell: Tell
    ) -> None:
        self._config = config
        self._transport = transport
        self._engine = engine
        self._views = views
        self._tell = tell
        self._addresses = {peer.id: peer.address for peer in config.peers}
        self._part: KernelPart | None = None

    def start(self) -> None:
        """After the transport has started: its port is what the program looks for."""
        if not self._config.ebpf.enabled:
            return
        port = self._transport.listen_port
        load = loader(self._config, port, self._engine.node.state.member_id)
        self._part = KernelPart(self._config.ebpf, port, self, self._tell, load)
        self._engine.last_stamp = self._part.leader_stamp
        self._part.start()

    async def stop(self) -> None:
        if self._part is not None:
            self._engine.last_stamp = None
            await self._part.stop()

    def follow(self, configuration: Configuration) -> None:
        """Members have changed; those that are about to leave are still among them."""
        own = self._engine.node.state.member_id
        self._addresses = {
            member.name: member.address for member in configuration.members if member.id != own
        }
        if self._part is not None:
            self._part.look_again()

    def handled(self, sender: int, message: Any) -> None:
        """This message has come out of its connection now; the kernel knows when it went in."""
        if self._part is not None:
            self._part.handled(sender, message.request_id)

    # --- Surroundings

    def connections(self) -> list[Connection]:
        return [
            Connection(flow.member_id, flow.local, flow.remote, flow.received_bytes)
            for flow in self._transport.flows()
        ]

    def peer_addresses(self) -> list[tuple[str, int]]:
        return [split_address(address) for address in self._addresses.values()]

    def peer_name(self, peer: int) -> str:
        return self._views.member_name(peer)

    # --- API

    def status(self) -> EbpfStatus:
        kernel = self._part
        if kernel is None:
            return EbpfStatus()
        return EbpfStatus(
            kernel.state,
            kernel.reason,
            kernel.interfaces,
            kernel.firewall,
            self._faults(),
            kernel.fix,
        )

    def report(self) -> protocol.KernelResult:
        kernel = self._part
        if kernel is None or kernel.sight is None:
            return protocol.KernelResult(self.status(), [], [])
        found = kernel_report.peers(
            kernel, kernel.sight, self.connections(), self._transport.stats(), self.peer_name
        )
        strangers, lost = kernel.sight.strangers(), kernel.sight.stats()[Stat.EVENTS_LOST]
        return protocol.KernelResult(self.status(), kernel.in_front, found, strangers, lost)

    def reading(self) -> KernelReading | None:
        """For the metrics; None when it is off."""
        return None if self._part is None else kernel_report.reading(self._part, self.peer_name)

    def set_fault(self, request: protocol.FaultSet) -> protocol.FaultsResult | Failure:
        sight = self._sight_for_faults()
        if isinstance(sight, Failure):
            return sight
        host = self._host_for_faults(request.peer)
        if isinstance(host, Failure):
            return host
        for way, direction in (("in", Direction.INGRESS), ("out", Direction.EGRESS)):
            if request.direction in (way, "both"):
                sight.inject(host, direction, request.per_mille, request.duration_ms)
        self._tell(
            "kernel_fault_set",
            peer=request.peer,
            per_mille=request.per_mille,
            direction=str(request.direction),
            duration_ms=request.duration_ms,
        )
        return protocol.FaultsResult(self._faults())

    def heal_faults(self, request: protocol.FaultHeal) -> protocol.FaultsResult | Failure:
        sight = self._sight_for_faults()
        if isinstance(sight, Failure):
            return sight
        host = self._host_for_faults(request.peer) if request.peer else ""
        if isinstance(host, Failure):
            return host
        sight.heal(host)
        self._tell("kernel_faults_healed", peer=request.peer or "every peer")
        return protocol.FaultsResult(self._faults())

    def _sight_for_faults(self) -> Sight | Failure:
        if not self._config.fault_injection:
            return Failure(
                ErrorCode.REFUSED,
                "This agent was not started for tests with faults",
                "Start it with raft-agent --enable-fault-injection",
            )
        if self._part is None or self._part.sight is None:
            status = self.status()
            why = status.reason or "ebpf.enabled is false"
            return Failure(
                ErrorCode.REFUSED,
                f"The kernel part is {status.state}: {why}",
                "See what it lacks: raftctl doctor",
            )
        return self._part.sight

    def _host_for_faults(self, name: str) -> str | Failure:
        """The IP address that the peer's connections come from and go to."""
        host = self._host_of(name)
        if host is None:
            return Failure(
                ErrorCode.NO_SUCH_MEMBER,
                f"No other member is called {name}, or its address is not known",
                "The members: raftctl member list",
            )
        others = {other for other in self._addresses if self._host_of(other) == host} - {name}
        if others:
            return Failure(
                ErrorCode.REFUSED,
                f"{name} shares the address {host} with {', '.join(sorted(others))}, and faults "
                "are per address",
                "Nodes with addresses of their own: raftctl dev up --isolated",
            )
        return host

    def _host_of(self, name: str) -> str | None:
        """Where the peer's connections end; when there are none, where it is dialled, if that is no
        name."""
        for one in self.connections():
            if self.peer_name(one.peer) == name:
                return one.remote[0]
        try:
            return str(ip_address(split_address(self._addresses[name])[0]))
        except (KeyError, ValueError):
            return None

    def _faults(self) -> list[FaultInfo]:
        if not self._config.fault_injection or self._part is None or self._part.sight is None:
            return []
        now_ns = time.monotonic_ns()
        names = {self._host_of(name): name for name in self._addresses}
        return [
            FaultInfo(
                names.get(str(fault.remote), str(fault.remote)),
                "in" if fault.direction is Direction.INGRESS else "out",
                fault.per_mille,
                (fault.until_ns - now_ns) // 1_000_000,
            )
            for fault in self._part.sight.faults(now_ns)
        ]
