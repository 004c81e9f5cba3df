"""The kernel part in the API: how it is, what it saw, and faults for tests.

Use them as members of `protocol`.
"""

from __future__ import annotations

import enum
from typing import Annotated, TypeAlias

import msgspec

from raft_agent.api.terms import BaseRequest, Name

MAX_FAULT_MS = 300_000
FaultShare: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=1000)]
FaultTime: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=MAX_FAULT_MS)]

# The reason while it is not known yet what will come of it.
EBPF_STARTING = "is starting"


class FaultDirection(enum.StrEnum):
    IN = "in"
    OUT = "out"
    BOTH = "both"


class Kernel(BaseRequest, frozen=True, tag="kernel"):
    """What the program in the kernel has seen of every peer."""


class FaultSet(BaseRequest, frozen=True, tag="fault_set"):
    """Lose `per_mille` of the packets that this node exchanges with `peer`, for `duration_ms` (1 to
    300,000). `direction`: "in", "out" or "both", as this node sees it. Only an agent that was
    started for such tests does it."""

    peer: Name
    per_mille: FaultShare
    duration_ms: FaultTime
    direction: FaultDirection = FaultDirection.BOTH


class FaultHeal(BaseRequest, frozen=True, tag="fault_heal"):
    """End the faults of one peer, or with an empty `peer` all."""

    peer: Name = ""


class FaultInfo(msgspec.Struct, frozen=True):
    """A fault that was made for a test. `direction`: "in" or "out", as this node sees it."""

    peer: str
    direction: str
    per_mille: int
    ends_in_ms: int


class EbpfStatus(msgspec.Struct, frozen=True):
    """`state`: "off", "attached", "attached-but-bypassed" or "degraded", and why. `firewall`:
    "off", "audit" or "enforce", as it is at the moment. `fix`: a command that mends what `reason`
    says, or shows more of it; empty where none does."""

    state: str = "off"
    reason: str = ""
    interfaces: list[str] = []
    firewall: str = "off"
    faults: list[FaultInfo] = []
    fix: str = ""


class KernelTraffic(msgspec.Struct, frozen=True):
    """One direction of a peer's connections that stand, as the program saw it. `bytes` with all
    headers; `stream_bytes`: how far the TCP streams went on. `frames`: how many by type; exact
    while every connection is in sync. `lost_sync`: how often the program lost its place in a
    stream. `agent_frames`, `agent_bytes`: what the agent itself counted, since its start."""

    packets: int = 0
    bytes: int = 0
    retransmissions: int = 0
    frames: dict[str, int] = {}
    entries: int = 0
    lost_sync: int = 0
    stream_bytes: int = 0
    agent_frames: int = 0
    agent_bytes: int = 0


class KernelPeer(msgspec.Struct, frozen=True):
    """What the kernel saw of one member. `wire`: from AppendEntries to the response, `loop`: from a
    packet's arrival to this process's handling it, as (median, 99th percentile) in microseconds;
    null before the first. `append_ago_ms`, `append_term`: the newest AppendEntries or heartbeat
    that came; null before the first."""

    name: str
    flows: int
    in_sync: bool
    received: KernelTraffic
    sent: KernelTraffic
    wire_us: tuple[int, int] | None = None
    loop_us: tuple[int, int] | None = None
    append_ago_ms: int | None = None
    append_term: int | None = None


class KernelResult(msgspec.Struct, frozen=True):
    """`in_front`: programs that see the packets before ours. `strangers`: connections from
    addresses that the filter does not know, counted or refused. `lost_events`: those for which the
    ring buffer had no room."""

    ebpf: EbpfStatus
    in_front: list[str]
    peers: list[KernelPeer]
    strangers: int = 0
    lost_events: int = 0


class FaultsResult(msgspec.Struct, frozen=True):
    """The faults that are in force now."""

    faults: list[FaultInfo]
