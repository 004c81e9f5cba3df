"""What the HTTP part needs of the node that it tells about; the runtime provides it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from raft_agent.api import protocol
from raft_agent.api.host import Failure
from raft_agent.histogram import Histogram


class PeerReading(msgspec.Struct, frozen=True, kw_only=True):
    """Another member. Only a leader knows `match_index`, `lag` (entries) and, of those who answered
    it, `contact_s`; else that is when the last bytes came. None: not known.
    """

    name: str
    is_connected: bool
    match_index: int | None
    lag: int | None
    contact_s: float | None
    received_bytes: int
    sent_bytes: int
    received_frames: int
    sent_frames: int
    dropped_frames: int
    queued_bytes: int
    reconnects: int
    round_trips: Histogram


class SnapshotReading(msgspec.Struct, frozen=True, kw_only=True):
    """The newest durable snapshot, and how long taking them took. `taken_at`: seconds since 1970 of
    the last one that this process took, else None.
    """

    index: int
    size_bytes: int
    taken_at: float | None
    durations: Histogram


class Durations(msgspec.Struct, frozen=True):
    """How many durations were no longer than so many seconds, as (seconds, how many) with both
    rising; the last bound is infinite. What they add up to is not known.
    """

    up_to: tuple[tuple[float, int], ...]


class KernelTraffic(msgspec.Struct, frozen=True, kw_only=True):
    """One direction of all connections with a member since the agent's start, as the program in the
    kernel saw it. `bytes`: with all headers. `frames`: how many by type.
    """

    packets: int
    bytes: int
    retransmissions: int
    sync_lost: int
    fault_drops: int
    frames: Mapping[str, int]


class KernelPeerReading(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel saw of a member. `wire`: from request to response, by what was asked. `lag`:
    from the kernel to the event loop.
    """

    name: str
    in_sync: bool
    received: KernelTraffic
    sent: KernelTraffic
    wire: Mapping[str, Durations]
    lag: Durations


class KernelReading(msgspec.Struct, frozen=True, kw_only=True):
    """`connections`: new ones that the filter looked at, by outcome."""

    state: str
    peers: Sequence[KernelPeerReading]
    connections: Mapping[str, int]
    lost_events: int


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """All of a node's numbers at one moment. Counters count since the agent's start; the histograms
    are the live ones.

    `not_ready`: why it can't serve, "" when it can. `events`: by kind. `rejects`: connections and
    frames that were refused, by reason. `watches`: by what is watched. `kernel`: None when it is
    off; `exports`: None when this node keeps no maps. `state_checks`: how this node's state stood
    the comparisons, by judgement; `agreed_index`: the newest entry behind which it was a quorum's;
    `state_differs`: it is known not to be. `certificate_ends`: when the node's own does, in seconds
    since 1970; None without TLS.
    """

    status: protocol.StatusResult
    vitals: protocol.VitalsResult
    not_ready: str
    storage_failed: bool
    disk_stalls: bool
    commits: Histogram
    fsyncs: Histogram
    loop_lags: Histogram
    events: Mapping[str, int]
    peers: Sequence[PeerReading]
    rejects: Mapping[str, int]
    snapshot: SnapshotReading
    watches: Mapping[str, int]
    one_shots: int
    revision: int
    state_checks: Mapping[str, int]
    agreed_index: int
    state_differs: bool
    kernel: KernelReading | None
    exports: protocol.ExportListResult | None
    certificate_ends: float | None


class Source(Protocol):
    """One node. All methods are called in its event loop and never block."""

    node_name: str

    def reading(self) -> Reading: ...

    def not_ready(self) -> str:
        """Why this node can't serve clients, for people; "" when it can."""

    def is_leader(self) -> bool: ...

    def status(self) -> protocol.StatusResult: ...

    def health(self) -> protocol.HealthResult: ...

    def vitals(self) -> protocol.VitalsResult: ...

    def forward(self, request: protocol.Request, done: Callable[[bytes | Failure], None]) -> None:
        """Have the leader serve `request`; the answer is the encoded (MessagePack) Reply of it."""

    def recent_events(self, limit: int) -> list[protocol.EventItem]: ...

    def subscribe_events(
        self, on_event: Callable[[protocol.EventItem], None]
    ) -> Callable[[], None]:
        """Calls `on_event` for every new event until the returned function is called."""
