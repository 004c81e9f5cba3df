"""When the leader proposes the end of leases."""

from __future__ import annotations

from raft_agent.machine import lease_clock
from raft_agent.machine.commands import ExpireLease, GrantLease, KeepLease, RevokeLease
from raft_agent.machine.lease_clock import RETRY_US, LeaseClock
from raft_agent.machine.machine import Machine
from tests.unit.machine.batches import apply

S = 1_000_000


def leading(machine: Machine, now_us: int = 0) -> LeaseClock:
    clock = LeaseClock()
    clock.lead(machine.leases, now_us)
    return clock


def test_a_lease_is_due_when_its_time_has_passed_since_it_was_applied() -> None:
    machine = Machine()
    clock = leading(machine)
    apply(machine, GrantLease(5000))
    clock.applied(2 * S)
    assert clock.next_due_us() == 7 * S
    assert clock.due(7 * S - 1) == []
    assert clock.due(7 * S) == [(1, 1)]


def test_a_renewal_begins_the_time_anew() -> None:
    machine = Machine()
    clock = leading(machine)
    apply(machine, GrantLease(5000))
    clock.applied(0)
    apply(machine, KeepLease(1))
    clock.applied(4 * S)
    assert clock.due(9 * S - 1) == []
    assert clock.due(9 * S) == [(1, 2)]


def test_a_new_leader_gives_every_lease_all_of_its_time() -> None:
    machine = Machine()
    apply(machine, GrantLease(5000), GrantLease(2000))
    clock = leading(machine, 100 * S)
    assert clock.due(102 * S - 1) == []
    assert clock.due(102 * S) == [(2, 2)]
    assert clock.due(105 * S) == [(2, 2), (1, 1)]


def test_what_a_leader_applies_of_its_predecessors_has_all_of_its_time() -> None:
    """It is elected before it has applied all that was committed."""
    machine = Machine()
    clock = leading(machine, 10 * S)
    apply(machine, GrantLease(5000))
    clock.applied(11 * S)
    assert clock.due(16 * S - 1) == []
    assert clock.due(16 * S) == [(1, 1)]


def test_an_end_that_did_not_come_is_proposed_again_but_not_at_once() -> None:
    machine = Machine()
    clock = leading(machine)
    apply(machine, GrantLease(1000))
    clock.applied(0)
    assert clock.due(S) == [(1, 1)]
    assert clock.due(S + RETRY_US - 1) == []
    assert clock.due(S + RETRY_US) == [(1, 1)]
    apply(machine, ExpireLease(1, 1))
    clock.applied(3 * S)
    assert clock.due(100 * S) == []
    assert clock.next_due_us() is None


def test_who_does_not_lead_proposes_nothing_and_gathers_nothing() -> None:
    machine = Machine()
    clock = leading(machine)
    apply(machine, GrantLease(1000))
    clock.follow()
    apply(machine, KeepLease(1))
    clock.applied(S)
    assert not clock.leads
    assert clock.next_due_us() is None
    assert clock.due(100 * S) == []
    assert machine.leases.renewed == []


def test_many_ends_are_proposed_in_portions() -> None:
    machine = Machine()
    clock = leading(machine)
    apply(machine, *(GrantLease(1000) for _ in range(lease_clock.AT_ONCE + 10)))
    clock.applied(0)
    assert len(clock.due(S)) == lease_clock.AT_ONCE
    assert clock.next_due_us() == S
    assert len(clock.due(S)) == 10


def test_a_lease_that_is_kept_alive_often_fills_no_memory() -> None:
    machine = Machine()
    clock = leading(machine)
    apply(machine, GrantLease(3_600_000))
    for _ in range(5000):
        apply(machine, KeepLease(1))
        clock.applied(0)
    assert len(clock._due) <= 4 + 1024


def test_it_says_how_much_time_is_left() -> None:
    machine = Machine()
    clock = leading(machine)
    apply(machine, GrantLease(5000), GrantLease(9000), KeepLease(1), RevokeLease(2))
    clock.applied(S)
    assert clock.remaining_us(2 * S) == {1: 4 * S}
    assert clock.remaining_us(99 * S) == {1: 0}
    clock.follow()
    assert clock.remaining_us(2 * S) == {}
