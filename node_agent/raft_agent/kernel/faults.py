"""Packets to lose on purpose, for tests: per peer and direction, always with an end.

The program looks at these only when it was loaded with `faults_enabled`.
"""

from __future__ import annotations

import time

import msgspec

from raft_agent.kernel import layout
from raft_agent.kernel.layout import Direction, IpAddress
from raft_agent.kernel.libbpf import Map

MAX_DURATION_S = layout.MAX_FAULT_NS // 1_000_000_000
ALWAYS = 1000


class Fault(msgspec.Struct, frozen=True):
    """`per_mille` of the packets between this host and `remote` in one direction are dropped until
    `until_ns` (CLOCK_MONOTONIC); `hits` were.
    """

    remote: IpAddress
    direction: Direction
    per_mille: int
    until_ns: int
    hits: int = 0


def inject(
    faults: Map, remote: IpAddress, direction: Direction, per_mille: int, duration_s: float
) -> Fault:
    """Drop packets from now on, in place of what was asked for before.

    Raises ValueError for a share or a duration that can't be, OSError.
    """
    if not 0 < per_mille <= ALWAYS:
        raise ValueError(f"a share of {per_mille} per mille: must be 1 to {ALWAYS}")
    if not 0 < duration_s <= MAX_DURATION_S:
        raise ValueError(f"a fault of {duration_s} s: must end within {MAX_DURATION_S} s")
    until_ns = time.monotonic_ns() + int(duration_s * 1e9)
    faults.update(_key(remote, direction), layout.FAULT.pack(until_ns, 0, per_mille))
    return Fault(remote, direction, per_mille, until_ns)


def heal(faults: Map, remote: IpAddress | None = None) -> int:
    """End the faults of one peer, or all; how many there were. Raises OSError."""
    ended = 0
    for fault in read_faults(faults):
        if remote is None or fault.remote == remote:
            ended += faults.delete(_key(fault.remote, fault.direction))
    return ended


def read_faults(faults: Map) -> list[Fault]:
    """All faults, those too whose time is over. Raises OSError."""
    found = []
    for key, value in faults.items():
        remote, direction = layout.FAULT_KEY.unpack(key)
        until_ns, hits, per_mille = layout.FAULT.unpack(value)
        fault = Fault(layout.address_of(remote), Direction(direction), per_mille, until_ns, hits)
        found.append(fault)
    return found


def _key(remote: IpAddress, direction: Direction) -> bytes:
    return layout.FAULT_KEY.pack(layout.address_bytes(remote), direction)
