"""The leader's part in leases: it proposes the end of those whose time is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from raft_agent.api.host import Outcome
from raft_agent.machine.commands import Command, ExpireLease
from raft_agent.machine.lease_clock import LeaseClock
from raft_agent.machine.leases import Leases

# Ends that are due at about the same time share a batch.
_LOOK_AGAIN_S = 0.05
# A process that stood still finds timer and sockets due at once: the sockets first.
_ONE_TURN_S = 0.001


class LeaseKeeper:
    """`now_us` is a clock that goes on while the machine is suspended."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        propose: Callable[[Sequence[Command], Callable[[Outcome], None]], None],
        now_us: Callable[[], int],
    ) -> None:
        self._loop = loop
        self._propose = propose
        self._now_us = now_us
        self._clock = LeaseClock()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_us = 0

    def role(self, leads: bool, leases: Leases) -> None:
        """Whether this node leads from now on."""
        if leads and not self._clock.leads:
            self._clock.lead(leases, self._now_us())
            self._arm()
        elif not leads and self._clock.leads:
            self._clock.follow()
            self.close()

    def applied(self) -> None:
        """A batch was applied."""
        if self._clock.leads:
            self._clock.applied(self._now_us())
            self._arm()

    def remaining_ms(self) -> dict[int, int]:
        """How much of its time each lease has left; empty when this node does not lead."""
        remaining_us = self._clock.remaining_us(self._now_us())
        return {lease: left_us // 1000 for lease, left_us in remaining_us.items()}

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        """Renewals move the time later; the timer is only ever moved earlier, and looks again."""
        due_us = self._clock.next_due_us()
        if due_us is None:
            return
        if self._timer is not None:
            if due_us >= self._timer_due_us:
                return
            self._timer.cancel()
        self._timer_due_us = due_us
        delay_s = max((due_us - self._now_us()) / 1e6, _LOOK_AGAIN_S)
        self._timer = self._loop.call_later(delay_s, self._due)

    def _due(self) -> None:
        # uvloop runs timers before it polls, so one that is set now fires after a full turn of
        # reads: a renewal that waits in a socket comes first in the log, and is seen there.
        self._timer = self._loop.call_later(_ONE_TURN_S, self._end)

    def _end(self) -> None:
        self._timer = None
        ends = [ExpireLease(*end) for end in self._clock.due(self._now_us())]
        if ends:
            self._propose(ends, _nobody_waits)
        self._arm()


def _nobody_waits(_outcome: Outcome) -> None:
    """An end that did not come is proposed again by whoever leads then."""
