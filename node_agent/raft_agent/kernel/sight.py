"""The loaded program as the kernel part uses it: its maps behind questions and orders."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from raft_agent.config import Config
from raft_agent.kernel import OBJECT_PATH, counters, faults, firewall, libbpf, ports
from raft_agent.kernel.counters import Flow
from raft_agent.kernel.faults import Fault
from raft_agent.kernel.lag import LagMeter
from raft_agent.kernel.layout import Direction, FirewallMode, FlowKey, IpAddress, Stat, Sync
from raft_agent.kernel.libbpf import LoadedObject
from raft_agent.kernel.ring import EventRing
from raft_agent.kernel.stamps import Stamp, last_append
from raft_agent.kernel.tc import EGRESS, INGRESS, Programs

log = logging.getLogger("raft.kernel")

End = tuple[str, int]


class Connection(msgspec.Struct, frozen=True):
    """A TCP connection with a member: the IP address and port of both ends, and how many bytes of
    it the system has received (None: it does not tell)."""

    peer: int
    local: End
    remote: End
    received_bytes: int | None

    @property
    def key(self) -> FlowKey:
        """Its place in the program's map."""
        (here, port), (there, their_port) = self.local, self.remote
        return FlowKey(_address(here), port, _address(there), their_port)


class Pins:
    """The maps in `directory`, for other programs; nothing here needs them."""

    def __init__(self, loaded: LoadedObject, directory: Path) -> None:
        self._loaded = loaded
        self._directory = directory
        self._is_ours = False
        try:
            # What the service prepared, with an owner and a mode of its choice, stays.
            self._is_ours = not directory.exists()
            # Whoever may read an exported map has to get to it.
            directory.mkdir(mode=0o711, parents=True, exist_ok=True)
            loaded.pin_maps(directory)
        except OSError as error:
            log.warning(
                "maps are not pinned in %s: %s (it must be on a BPF file system that this user "
                "may write to: mount -t bpf bpf /sys/fs/bpf)",
                directory,
                error.strerror,
            )
            self.remove()

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self._loaded.unpin_maps(self._directory)
            if self._is_ours:
                self._directory.rmdir()


class Sight:
    """The program in the kernel. Methods raise OSError when the kernel refuses."""

    def __init__(self, loaded: LoadedObject, pins: Pins | None) -> None:
        self._loaded = loaded
        self._pins = pins
        self._flows = loaded.map("flows")
        self.programs = Programs(loaded.program_fd(INGRESS), loaded.program_fd(EGRESS))
        self.events = EventRing(loaded.map("events"))

    def flow(self, connection: Connection) -> Flow | None:
        """None when it never saw a packet of the connection."""
        return counters.read_flow(self._flows, connection.key)

    def forget(self, key: FlowKey) -> Flow | None:
        """Begin anew with a connection that is over; what was counted of it."""
        flow = counters.read_flow(self._flows, key)
        self._flows.delete(key.encode())
        return flow

    def last_append(self, connection: Connection) -> Stamp | None:
        """The newest AppendEntries or heartbeat header that came. None when there was none, or when
        the program has lost its place in the stream and can't tell what comes.
        """
        flow = self.flow(connection)
        if flow is None or flow.ingress.sync is not Sync.YES:
            return None
        return last_append(self._flows, connection.key)

    def measure(self, lag: LagMeter, connection: Connection) -> None:
        """Have `lag` take in the frames that came on the connection lately."""
        lag.take_in(self._flows, connection.key)

    def count_ports(self, peer_ports: Iterable[int]) -> None:
        """Look at connections to these ports of peers too, besides the agent's own."""
        ports.set_peer_ports(self._loaded.map("peer_ports"), peer_ports)

    def stats(self) -> dict[Stat, int]:
        """What belongs to no connection."""
        return counters.read_stats(self._loaded.map("stats"))

    # --- filter

    def guard(self, mode: str, networks: Iterable[str], enforce_for_ms: int) -> None:
        """Let new connections in from these addresses and networks, and in `mode` "enforce" from no
        others, until `enforce_for_ms` have passed without another call.
        """
        wanted = [ipaddress.ip_network(network) for network in networks]
        firewall.set_allowed(self._loaded.map("allowed"), wanted)
        firewall.set_mode(self._loaded.map("control"), FirewallMode[mode.upper()], enforce_for_ms)

    def strangers(self) -> int:
        """How many connections came from addresses that are not let in."""
        found = firewall.read_strangers(self._loaded.map("strangers"))
        return sum(stranger.connections for stranger in found)

    # --- faults

    def faults(self, now_ns: int) -> list[Fault]:
        """Those that are in force."""
        found = faults.read_faults(self._loaded.map("faults"))
        return [fault for fault in found if fault.until_ns > now_ns]

    def inject(self, host: str, direction: Direction, per_mille: int, duration_ms: int) -> None:
        """Lose packets that come from the IP address `host`, or go to it."""
        where = self._loaded.map("faults")
        faults.inject(where, _address(host), direction, per_mille, duration_ms / 1000)

    def heal(self, host: str) -> None:
        """End the faults of one IP address, or with "" all."""
        faults.heal(self._loaded.map("faults"), _address(host) if host else None)

    def close(self) -> None:
        """Unload: what is still attached stops to see frames. Pins of ours go too."""
        self.events.close()
        if self._pins is not None:
            self._pins.remove()
        self._loaded.close()


def loader(config: Config, port: int, member_id: int) -> Callable[[], Sight]:
    """What loads the program for the agent that listens on `port`; it raises KernelUnavailable."""
    path = Path(config.bpf_object) if config.bpf_object else OBJECT_PATH
    rodata = {
        "local_member_id": member_id,
        "raft_port": port,
        "faults_enabled": int(config.fault_injection),
    }

    def load() -> Sight:
        loaded = libbpf.load(path, rodata=rodata, pin_dir=None)
        try:
            pins = Pins(loaded, Path(config.ebpf.pin_dir)) if config.ebpf.pin_dir else None
            return Sight(loaded, pins)
        except BaseException:
            loaded.close()
            raise

    return load


def _address(text: str) -> IpAddress:
    """A scope ("fe80::1%eth0") is no part of what is on the wire; what a socket for both versions
    calls ::ffff:a.b.c.d is IPv4 there."""
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if address.version == 6 else None
    return mapped or address
