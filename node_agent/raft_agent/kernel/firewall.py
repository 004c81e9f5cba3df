"""The filter: who may open connections to the Raft port, and who tried to."""

from __future__ import annotations

import time
from collections.abc import Iterable

import msgspec

from raft_agent.kernel import layout
from raft_agent.kernel.layout import FirewallMode, IpAddress, IpNetwork
from raft_agent.kernel.libbpf import Map

_FIRST = layout.INDEX.pack(0)
_IPV4_BITS = 96  # in front of an IPv4 address in ::ffff:0:0/96
_ANY = layout.INDEX.pack(1)  # the value in the map means nothing


class Stranger(msgspec.Struct, frozen=True):
    """Who tried to connect without being allowed to; times on CLOCK_MONOTONIC."""

    address: IpAddress
    connections: int
    dropped: int
    first_ns: int
    last_ns: int


def set_mode(control: Map, mode: FirewallMode, enforce_for_ms: int) -> None:
    """Set the mode, and give it `enforce_for_ms` until nothing is dropped any more: the agent has
    to come again before. Raises OSError.
    """
    until_ns = time.monotonic_ns() + enforce_for_ms * 1_000_000
    control.update(_FIRST, layout.CONTROL.pack(until_ns, mode))


def set_allowed(allowed: Map, networks: Iterable[IpNetwork]) -> None:
    """Let exactly these connect, whatever was allowed before; nobody who stays on the list is off
    it for a moment. Raises OSError.
    """
    wanted = {_prefix(network) for network in networks}
    there = set(allowed.keys())
    for key in wanted - there:
        allowed.update(key, _ANY)
    for key in there - wanted:
        allowed.delete(key)


def read_strangers(strangers: Map) -> list[Stranger]:
    """Who tried to connect without being allowed to. Raises OSError."""
    return [
        Stranger(layout.address_of(key), *layout.STRANGER.unpack(value))
        for key, value in strangers.items()
    ]


def _prefix(network: IpNetwork) -> bytes:
    bits = network.prefixlen + (_IPV4_BITS if network.version == 4 else 0)
    return layout.PREFIX.pack(bits, layout.address_bytes(network.network_address))
