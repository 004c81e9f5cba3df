"""What the program has counted per member since the agent's start, whatever connections came and
went. The program counts per connection, and forgets those that are over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import msgspec

from raft_agent.kernel.counters import Counters, Flow, Log2Histogram
from raft_agent.kernel.layout import FlowKey, Sync


class Tally(msgspec.Struct):
    """One direction; the fields mean what they mean in Counters. `types`: frames only."""

    packets: int = 0
    bytes: int = 0
    retransmissions: int = 0
    sync_lost: int = 0
    fault_drops: int = 0
    types: Counter[int] = msgspec.field(default_factory=Counter)
    append_latency: Log2Histogram = Log2Histogram()
    heartbeat_latency: Log2Histogram = Log2Histogram()

    def add(self, counters: Counters) -> None:
        """One connection more."""
        self.packets += counters.packets
        self.bytes += counters.bytes
        self.retransmissions += counters.retransmissions
        self.sync_lost += counters.sync_lost
        self.fault_drops += counters.fault_drops
        self.types.update({kind: count.frames for kind, count in counters.types.items()})
        self.append_latency += counters.append_latency
        self.heartbeat_latency += counters.heartbeat_latency

    def copy(self) -> Tally:
        return msgspec.structs.replace(self, types=self.types.copy())


class PeerTotals(msgspec.Struct):
    """Both directions of all connections with a member. `in_sync`: the program knows its place in
    all that stand."""

    ingress: Tally = msgspec.field(default_factory=Tally)
    egress: Tally = msgspec.field(default_factory=Tally)
    in_sync: bool = True

    def add(self, flow: Flow) -> None:
        """One connection more."""
        self.ingress.add(flow.ingress)
        self.egress.add(flow.egress)

    def copy(self) -> PeerTotals:
        return PeerTotals(self.ingress.copy(), self.egress.copy())


class Totals:
    """`forget(flow)` takes the counters of a connection out of the program and gives their last
    values; None when it does not know it any more."""

    def __init__(self, forget: Callable[[FlowKey], Flow | None]) -> None:
        self._forget = forget
        self._over: dict[int, PeerTotals] = {}
        self._standing: dict[tuple[int, FlowKey], Flow] = {}

    def look(self, seen: Iterable[tuple[int, Flow]]) -> None:
        """(peer, counters) of all connections that stand. Raises OSError."""
        standing = {(peer, flow.key): flow for peer, flow in seen}
        # A connection that stands no more leaves nothing behind that another one, from the same
        # port, would go on with: that would count twice.
        for peer, key in self._standing.keys() - standing.keys():
            last = self._forget(key) or self._standing[peer, key]
            self._over.setdefault(peer, PeerTotals()).add(last)
        self._standing = standing

    def peers(self) -> dict[int, PeerTotals]:
        """As of the last look."""
        found = {peer: totals.copy() for peer, totals in self._over.items()}
        for (peer, _), flow in self._standing.items():
            totals = found.setdefault(peer, PeerTotals())
            totals.add(flow)
            sides = (flow.ingress, flow.egress)
            totals.in_sync &= all(side.sync is not Sync.LOST for side in sides)
        return found
