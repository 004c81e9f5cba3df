"""When the leader proposes the end of a lease.

The leader measures with its own clock how long ago it applied the last renewal of each; whoever
comes to lead gives every lease all of its time anew, because nobody could keep one alive while
there was no leader, and because its clock has not seen what came before. So a lease lives at least
as long as its time after each renewal that was acknowledged, by the leader's clock, and may live
longer.
"""

from __future__ import annotations

import heapq

from raft_agent.machine.leases import Leases

# How long until an end that was proposed and did not come is proposed again.
RETRY_US = 1_000_000
# So many ends are proposed at once; more wait for the next look.
AT_ONCE = 256


class LeaseClock:
    """Of one node. Times in microseconds of a clock that never goes back."""

    def __init__(self) -> None:
        self._leases: Leases | None = None
        # (due, lease, the renewal that it counts from); one that was renewed since is stale.
        self._due: list[tuple[int, int, int]] = []

    @property
    def leads(self) -> bool:
        return self._leases is not None

    def lead(self, leases: Leases, now_us: int) -> None:
        """This node leads from now on: every lease has all of its time."""
        self._leases = leases
        leases.track(True)
        self._due = [
            (now_us + lease.ttl_ms * 1000, lease.id, lease.renewed_index) for lease in leases
        ]
        heapq.heapify(self._due)

    def follow(self) -> None:
        """This node does not lead any more."""
        if self._leases is not None:
            self._leases.track(False)
        self._leases = None
        self._due = []

    def applied(self, now_us: int) -> None:
        """Batches were applied: what they renewed has its time from now on."""
        leases = self._leases
        if leases is None or not leases.renewed:
            return
        renewed, leases.renewed = leases.renewed, []
        for lease_id in dict.fromkeys(renewed):
            lease = leases.get(lease_id)
            if lease is not None:
                due_us = now_us + lease.ttl_ms * 1000
                heapq.heappush(self._due, (due_us, lease_id, lease.renewed_index))
        if len(self._due) > 4 * len(leases) + 1024:
            # Leases with a long time that are kept alive often must not fill the memory.
            self._due = [item for item in self._due if self._counts(leases, item)]
            heapq.heapify(self._due)

    def _counts(self, leases: Leases, item: tuple[int, int, int]) -> bool:
        lease = leases.get(item[1])
        return lease is not None and lease.renewed_index == item[2]

    def next_due_us(self) -> int | None:
        """When to look again; None while there is nothing to look for."""
        return self._due[0][0] if self._due else None

    def due(self, now_us: int) -> list[tuple[int, int]]:
        """(lease, renewal) of those whose time is over, to be proposed now."""
        leases = self._leases
        ends: list[tuple[int, int]] = []
        while leases is not None and self._due and self._due[0][0] <= now_us:
            item = self._due[0]
            if not self._counts(leases, item):
                heapq.heappop(self._due)
                continue
            if len(ends) >= AT_ONCE:
                break
            heapq.heapreplace(self._due, (now_us + RETRY_US, item[1], item[2]))
            ends.append(item[1:])
        return ends

    def remaining_us(self, now_us: int) -> dict[int, int]:
        """How much of its time each lease has left; empty while this node does not lead."""
        leases = self._leases
        if leases is None:
            return {}
        return {
            item[1]: max(item[0] - now_us, 0) for item in self._due if self._counts(leases, item)
        }
