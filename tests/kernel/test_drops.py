"""The only packets that are dropped: strangers' new connections, and those a test asked to lose."""

from __future__ import annotations

import ipaddress
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from raft_agent.kernel import faults, firewall, layout
from raft_agent.kernel.counters import read_flow, read_stats
from raft_agent.kernel.layout import Direction, EventKind, FirewallMode, IpNetwork, Stat
from raft_agent.kernel.libbpf import LoadedObject, Map
from raft_agent.kernel.ring import EventRing
from tests.kernel import harness, packets
from tests.kernel.packets import ACK, SYN, ethernet, ip4, ip6, tcp
from tests.kernel.testrun import DROP, GO_ON, verdict

IN, OUT = Direction.INGRESS, Direction.EGRESS
KNOCK = ethernet(ip4(tcp(flags=SYN)))
KNOCK6 = ethernet(ip6(tcp(flags=SYN)))
A_MINUTE_MS = 60_000


@pytest.fixture
def program() -> Iterator[LoadedObject]:
    loaded = harness.load(faults_enabled=1)
    yield loaded
    loaded.close()


def set_mode(program: LoadedObject, mode: FirewallMode, enforce_for_ms: int = A_MINUTE_MS) -> None:
    firewall.set_mode(program.map("control"), mode, enforce_for_ms)


def allow(program: LoadedObject, *networks: str) -> None:
    firewall.set_allowed(program.map("allowed"), map(ipaddress.ip_network, networks))


def read_mode(program: LoadedObject) -> tuple[FirewallMode, int]:
    """The mode, and until when (CLOCK_MONOTONIC, ns) it is enforced."""
    value = program.map("control").lookup(layout.INDEX.pack(0))
    assert value is not None
    until_ns, mode = layout.CONTROL.unpack(value)
    return FirewallMode(mode), until_ns


def read_allowed(allowed: Map) -> set[IpNetwork]:
    """Who may connect; an IPv4 network is in the map as one of ::ffff:0:0/96."""
    found = set()
    for key in allowed.keys():  # noqa: SIM118  # a Map is no dict
        bits, data = layout.PREFIX.unpack(key)
        address = layout.address_of(data)
        found.add(ipaddress.ip_network((address, bits - (96 if address.version == 4 else 0))))
    return found


# --- the filter -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", FirewallMode)
@pytest.mark.parametrize("knock", [KNOCK, KNOCK6], ids=["IPv4", "IPv6"])
def test_a_stranger_is_dropped_in_enforce_mode_only(
    program: LoadedObject, mode: FirewallMode, knock: bytes
) -> None:
    allow(program, "10.0.0.0/8", "fd00::/8")
    set_mode(program, mode)
    expected = DROP if mode == FirewallMode.ENFORCE else GO_ON
    assert verdict(program, knock, IN) == expected
    assert len(list(harness.read_flows(program.map("flows")))) == (expected == GO_ON)
    stats = read_stats(program.map("stats"))
    assert stats[Stat.FIREWALL_AUDITED] == (mode == FirewallMode.AUDIT)
    assert stats[Stat.FIREWALL_DROPPED] == (mode == FirewallMode.ENFORCE)


@pytest.mark.parametrize("network", ["192.0.2.7/32", "192.0.2.0/24", "0.0.0.0/0", "::/0"])
def test_who_is_on_the_list_may_connect(program: LoadedObject, network: str) -> None:
    allow(program, network)
    set_mode(program, FirewallMode.ENFORCE)
    assert verdict(program, KNOCK, IN) == GO_ON
    assert read_stats(program.map("stats"))[Stat.FIREWALL_ADMITTED] == 1


def test_only_new_connections_to_our_port_are_looked_at(program: LoadedObject) -> None:
    set_mode(program, FirewallMode.ENFORCE)
    for packet, direction in (
        (ethernet(ip4(tcp(b"data"))), IN),
        (ethernet(ip4(tcp(flags=SYN | ACK))), IN),  # the answer to our own
        (ethernet(ip4(tcp(flags=SYN, source=5555, target=40_000))), IN),
        (KNOCK, OUT),
    ):
        assert verdict(program, packet, direction) == GO_ON
    assert not read_stats(program.map("stats"))[Stat.FIREWALL_DROPPED]


def test_this_host_may_connect_to_itself(program: LoadedObject) -> None:
    set_mode(program, FirewallMode.ENFORCE)
    to_itself = KNOCK[:26] + KNOCK[26:30] * 2 + KNOCK[34:]
    assert verdict(program, to_itself, IN) == GO_ON


def test_without_renewal_nobody_is_locked_out(program: LoadedObject) -> None:
    set_mode(program, FirewallMode.ENFORCE, enforce_for_ms=0)
    assert verdict(program, KNOCK, IN) == GO_ON
    assert read_stats(program.map("stats"))[Stat.FIREWALL_AUDITED] == 1
    set_mode(program, FirewallMode.ENFORCE)
    assert verdict(program, KNOCK, IN) == DROP


def test_strangers_are_listed_and_an_event_once(program: LoadedObject) -> None:
    with EventRing(program.map("events")) as events:
        set_mode(program, FirewallMode.AUDIT)
        verdict(program, KNOCK, IN)
        set_mode(program, FirewallMode.ENFORCE)
        verdict(program, KNOCK, IN)
        (event,) = events.consume()
    assert (event.kind, event.flow, event.detail) == (EventKind.UNKNOWN_SOURCE, packets.key(), 0)
    (stranger,) = firewall.read_strangers(program.map("strangers"))
    assert (stranger.address, stranger.connections, stranger.dropped) == (packets.PEER, 2, 1)
    assert 0 < stranger.first_ns < stranger.last_ns <= time.monotonic_ns()


def test_a_new_list_takes_the_place_of_the_old_one(program: LoadedObject) -> None:
    allowed = program.map("allowed")
    allow(program, "192.0.2.7/32", "10.0.0.0/8")
    allow(program, "10.0.0.0/8", "fd00::/64")
    networks = map(ipaddress.ip_network, ("10.0.0.0/8", "fd00::/64"))
    assert read_allowed(allowed) == set(networks)
    set_mode(program, FirewallMode.ENFORCE)
    assert verdict(program, KNOCK, IN) == DROP
    mode, until_ns = read_mode(program)
    assert mode == FirewallMode.ENFORCE
    assert until_ns > time.monotonic_ns()


def test_a_refused_stranger_gets_no_connection_and_others_do() -> None:
    with harness.linked() as link:
        program = link.right.program
        assert program is not None
        allow(program, f"{link.left.address6}/128")
        set_mode(program, FirewallMode.ENFORCE)
        with link.left.inside(), socket.socket() as stranger:
            stranger.settimeout(0.3)
            with pytest.raises(TimeoutError):
                stranger.connect((link.right.address, harness.PORT))
        link.connect(ip6=True)
        set_mode(program, FirewallMode.ENFORCE, enforce_for_ms=0)
        link.connect()


# --- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", Direction)
def test_a_fault_drops_its_share_of_one_direction(
    program: LoadedObject, direction: Direction
) -> None:
    packet = ethernet(ip4(tcp(b"data")))
    if direction == OUT:
        packet = packets.reversed_ends(packet)
    faults.inject(program.map("faults"), packets.PEER, direction, 300, 60)
    verdicts = [verdict(program, packet, direction) for _ in range(2000)]
    dropped = verdicts.count(DROP)
    assert 450 < dropped < 750  # 600 ± 7 standard deviations
    assert dropped + verdicts.count(GO_ON) == 2000
    flow = read_flow(program.map("flows"), packets.key())
    assert flow is not None
    counters = flow.ingress if direction == IN else flow.egress
    assert (counters.fault_drops, counters.packets) == (dropped, 2000 - dropped)
    assert read_stats(program.map("stats"))[Stat.FAULT_DROPPED] == dropped
    (fault,) = faults.read_faults(program.map("faults"))
    assert fault.hits == dropped


def test_a_partition_drops_everything_between_two_until_it_is_healed(
    program: LoadedObject,
) -> None:
    table = program.map("faults")
    packet = ethernet(ip4(tcp()))
    for direction in Direction:
        faults.inject(table, packets.PEER, direction, faults.ALWAYS, 60)
    assert {verdict(program, packet, IN) for _ in range(100)} == {DROP}
    assert verdict(program, ethernet(ip6(tcp())), IN) == GO_ON
    assert faults.heal(table, ipaddress.ip_address("192.0.2.8")) == 0
    assert faults.heal(table, packets.PEER) == 2
    assert verdict(program, packet, IN) == GO_ON
    assert faults.heal(table) == 0


def test_a_fault_ends_by_itself(program: LoadedObject) -> None:
    faults.inject(program.map("faults"), packets.PEER, IN, faults.ALWAYS, 1e-9)
    assert verdict(program, ethernet(ip4(tcp())), IN) == GO_ON


@pytest.mark.parametrize("seconds", [0, -1, 300.1])
def test_a_fault_without_an_end_in_sight_is_refused(program: LoadedObject, seconds: float) -> None:
    with pytest.raises(ValueError, match="must end within 300 s"):
        faults.inject(program.map("faults"), packets.PEER, IN, 1, seconds)


def test_the_program_itself_knows_no_fault_of_more_than_five_minutes(program: LoadedObject) -> None:
    until_ns = time.monotonic_ns() + layout.MAX_FAULT_NS + 60_000_000_000
    key = layout.FAULT_KEY.pack(layout.address_bytes(packets.PEER), IN)
    program.map("faults").update(key, layout.FAULT.pack(until_ns, 0, 1000))
    assert verdict(program, ethernet(ip4(tcp())), IN) == GO_ON


@pytest.mark.parametrize("per_mille", [0, -1, 1001])
def test_a_share_that_is_none_is_refused(program: LoadedObject, per_mille: int) -> None:
    with pytest.raises(ValueError, match="must be 1 to 1000"):
        faults.inject(program.map("faults"), packets.PEER, IN, per_mille, 1)


def test_the_first_hit_of_a_fault_is_an_event(program: LoadedObject) -> None:
    faults.inject(program.map("faults"), packets.PEER, IN, faults.ALWAYS, 60)
    with EventRing(program.map("events")) as events:
        for _ in range(3):
            verdict(program, ethernet(ip4(tcp())), IN)
        (event,) = events.consume()
    assert (event.kind, event.detail, event.flow) == (EventKind.FAULT_HIT, 1000, packets.key())


def test_without_fault_injection_the_map_is_dead() -> None:
    program = harness.load()
    faults.inject(program.map("faults"), packets.PEER, IN, faults.ALWAYS, 60)
    assert verdict(program, ethernet(ip4(tcp())), IN) == GO_ON
    program.close()


def test_the_switch_for_faults_is_frozen(program: LoadedObject) -> None:
    rodata = program.map("raft_tc.rodata")
    assert rodata.lookup(layout.INDEX.pack(0)) == layout.CONFIG.pack(0, harness.PORT, 1)
    with pytest.raises(PermissionError):
        rodata.update(layout.INDEX.pack(0), struct.pack("<16x"))
