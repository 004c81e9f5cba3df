"""The leader proposes the end of leases whose time is over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from raft_agent.machine.commands import ExpireLease, GrantLease, KeepLease
from raft_agent.machine.machine import Machine
from raft_agent.runtime.lease_keeper import LeaseKeeper
from tests.unit.machine.batches import apply

S = 1_000_000


class Handle:
    def __init__(self) -> None:
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeLoop:
    """Timers of a loop whose time the test moves; between two timers of one moment sockets are
    read."""

    def __init__(self) -> None:
        self.now_us = 0
        self.timers: list[tuple[int, Callable[[], None], Handle]] = []
        self.reads: list[Callable[[], None]] = []

    def call_later(self, delay_s: float, action: Callable[[], None]) -> Handle:
        handle = Handle()
        self.timers.append((self.now_us + round(delay_s * S), action, handle))
        return handle

    def sleep_until(self, at_us: int) -> None:
        """The process stands still: nothing happens, whatever is due."""
        self.now_us = at_us

    def run_until(self, at_us: int) -> None:
        while True:
            self.timers = [timer for timer in self.timers if not timer[2].is_cancelled]
            due = min(self.timers, key=lambda timer: timer[0], default=None)
            if due is None or due[0] > at_us:
                break
            self.timers.remove(due)
            self.now_us = max(self.now_us, due[0])
            due[1]()
            for read in self.reads:
                read()
            self.reads = []
        self.now_us = max(self.now_us, at_us)


class Host:
    """Applies what is proposed at once, when it leads."""

    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.machine = Machine()
        self.proposed: list[tuple[int, ExpireLease]] = []
        self.applies = True
        self.keeper = LeaseKeeper(
            self.loop,  # type: ignore[arg-type]
            self._propose,
            lambda: self.loop.now_us,
        )

    def _propose(self, commands: Sequence[Any], _done: Any) -> None:
        self.proposed += [(self.loop.now_us, expire) for expire in commands]
        if self.applies:
            self.apply(*commands)

    def apply(self, *commands: Any) -> None:
        apply(self.machine, *commands)
        self.keeper.applied()

    def lead(self) -> None:
        self.keeper.role(True, self.machine.leases)


def test_a_lease_that_nobody_keeps_alive_ends_soon_after_its_time() -> None:
    host = Host()
    host.lead()
    host.apply(GrantLease(2000))
    host.loop.run_until(2 * S)
    assert len(host.machine.leases) == 1
    host.loop.run_until(2 * S + 100_000)
    assert [expire for _, expire in host.proposed] == [ExpireLease(1, 1)]
    assert len(host.machine.leases) == 0
    host.loop.run_until(100 * S)
    assert len(host.proposed) == 1


def test_a_lease_that_is_kept_alive_does_not_end() -> None:
    host = Host()
    host.lead()
    host.apply(GrantLease(2000))
    for second in range(1, 20):
        host.loop.run_until(second * S)
        host.apply(KeepLease(1))
    assert host.proposed == []
    assert host.keeper.remaining_ms() == {1: 2000}


def test_a_shorter_lease_that_comes_later_ends_first() -> None:
    host = Host()
    host.lead()
    host.apply(GrantLease(60_000))
    host.apply(GrantLease(1000))
    host.loop.run_until(2 * S)
    assert [expire.lease for _, expire in host.proposed] == [2]


def test_who_stops_leading_proposes_nothing_more() -> None:
    host = Host()
    host.lead()
    host.apply(GrantLease(1000))
    host.keeper.role(False, host.machine.leases)
    host.loop.run_until(100 * S)
    assert host.proposed == []
    assert host.keeper.remaining_ms() == {}
    host.lead()
    host.loop.run_until(101 * S - 1)
    assert host.proposed == []
    host.loop.run_until(102 * S)
    assert len(host.proposed) == 1


def test_an_end_that_got_lost_is_proposed_again() -> None:
    host = Host()
    host.applies = False
    host.lead()
    host.apply(GrantLease(1000))
    host.loop.run_until(5 * S)
    assert 3 <= len(host.proposed) <= 5


def test_a_process_that_stood_still_reads_its_sockets_before_it_ends_a_lease() -> None:
    """The renewals that were sent meanwhile wait in them."""
    host = Host()
    host.lead()
    host.apply(GrantLease(2000))
    host.loop.sleep_until(10 * S)
    host.loop.reads.append(lambda: host.apply(KeepLease(1)))
    host.loop.run_until(10 * S + 10_000)
    assert host.proposed == []
    host.keeper.close()
    host.loop.run_until(100 * S)
    assert host.proposed == []
