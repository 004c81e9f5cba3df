"""What keeps exported maps, and what feeds it: a real machine, and a kernel in memory."""

from __future__ import annotations

import random
from collections import deque

import pytest

from raft_agent.kernel.export_jobs import Beat, Change, Declare, Fill, Job, together
from raft_agent.kernel.export_keeper import Keeper
from raft_agent.kernel.export_layout import ExportState, Status
from raft_agent.machine.commands import AddExport, Command, Put, RemoveExport
from raft_agent.machine.exports import Export, MapChange, Shape
from raft_agent.machine.machine import Machine
from raft_agent.runtime.export_feed import ExportFeed
from tests.sim.kernels import SimKernel
from tests.unit.machine.batches import apply

PORTS = Export("ports/", "ports", "hash", "u32", "u32", 1000)
OTHERS = Export("others/", "others", "hash", "u32", "u32", 1000)


class Kept:
    """A machine, its feed and its keeper, which works only when it is told to."""

    def __init__(self, kernel: SimKernel, machine: Machine) -> None:
        self.kernel = kernel
        self.machine = machine
        self.now_s = 0.0
        self.jobs: deque[Job] = deque()
        self.told: list[str] = []
        self.keeper = Keeper(kernel, self, lambda: self.now_s)
        self.feed = ExportFeed(
            machine,
            put=self.jobs.append,
            done=lambda: self.keeper.done,
            is_current=lambda: False,
            tell=lambda kind, **_: self.told.append(kind),
            piece=2,
            max_waiting=6,
            few_waiting=3,
        )
        self.keeper.begin()

    def found(self, index: int) -> None:
        self.feed.found(index)

    def happened(self, kind: str, **facts: int | str) -> None:
        assert "a fault of this program" not in str(facts.get("reason"))
        self.told.append(kind)

    def written(self, index: int, changes: list[tuple[Shape, MapChange]]) -> None:
        """Nobody watches."""

    def apply(self, *commands: Command) -> None:
        apply(self.machine, *commands)
        self.feed.applied(self.machine.last_applied)

    def hand_over(self) -> None:
        while self.feed.has_more:
            self.feed.step()

    def work(self) -> None:
        """All that is there to do."""
        while self.jobs:
            self.keeper.do(self.jobs.popleft())
        while self.keeper.patience_s(0) == 0:
            self.keeper.do(None)

    def settle(self) -> None:
        self.hand_over()
        self.work()

    @property
    def status(self) -> Status:
        status = self.kernel.status
        assert status is not None
        return status

    def entries(self, name: str) -> dict[bytes, bytes]:
        return dict(self.kernel.maps())[name]


def number(value: int) -> bytes:
    return value.to_bytes(4, "little")


@pytest.fixture
def kept() -> Kept:
    machine = Machine()
    apply(machine, AddExport(PORTS), *[Put(f"ports/{n}", b"1") for n in range(4)])
    made = Kept(SimKernel(random.Random(1), lambda: None), machine)
    made.settle()
    assert made.status.state == ExportState.READY
    return made


def test_an_adopted_state_is_at_no_index_before_it_is_in_the_maps(kept: Kept) -> None:
    before = kept.status.applied_index
    later = Machine()
    apply(later, AddExport(PORTS))
    for value in range(20):
        apply(later, Put("ports/9", b"%d" % value))
    kept.machine.adopt(later)
    kept.feed.adopted()
    kept.work()
    assert kept.status.applied_index == before
    assert kept.entries("ports_v1").keys() == {number(n) for n in range(4)}
    kept.settle()
    assert kept.status.applied_index == kept.machine.last_applied
    assert kept.entries("ports_v1") == {number(9): number(19)}


def test_a_map_that_goes_is_not_found_at_the_index_of_its_removal(kept: Kept) -> None:
    removed_at = kept.machine.last_applied + 1
    kept.apply(RemoveExport("ports"))
    while kept.jobs:
        kept.keeper.do(kept.jobs.popleft())
        assert kept.status.applied_index < removed_at or not dict(kept.kernel.maps())


def test_who_falls_behind_while_maps_are_handed_over_calls_none_complete(kept: Kept) -> None:
    before = kept.status.applied_index
    kept.apply(AddExport(OTHERS))
    for n in range(20):
        kept.apply(Put(f"ports/{n}", b"2"))
    assert "export_behind" in kept.told
    assert not kept.feed.has_more
    kept.work()
    assert before <= kept.status.applied_index < kept.machine.last_applied
    kept.feed.beat(term=1, leader_id=1, role=0, fresh_until_ns=0)
    kept.settle()
    assert kept.status.applied_index == kept.machine.last_applied
    assert kept.entries("ports_v1") == {number(n): number(2) for n in range(20)}


def test_maps_are_not_compared_before_all_that_they_should_hold_has_come(kept: Kept) -> None:
    kept.feed.adopted()
    kept.feed.step()
    kept.now_s = 1000.0
    kept.work()
    kept.keeper.do(None)
    assert kept.entries("ports_v1").keys() == {number(n) for n in range(4)}


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_what_is_refused_while_maps_are_compared_keeps_the_index_back(
    kept: Kept, steps: int
) -> None:
    before = kept.status.applied_index
    kept.now_s = 1000.0
    for _ in range(steps):
        kept.keeper.do(None)
    kept.kernel.refuses = 1.0
    kept.apply(Put("ports/7", b"7"))
    kept.keeper.do(kept.jobs.popleft())
    kept.kernel.refuses = 0.0
    kept.work()
    assert kept.status.applied_index == before
    assert kept.status.state == ExportState.DEGRADED
    kept.now_s = 2000.0
    kept.keeper.do(None)
    kept.work()
    assert kept.status.applied_index == kept.machine.last_applied
    assert kept.entries("ports_v1")[number(7)] == number(7)


def beat(index: int) -> Beat:
    return Beat(index, 1, 1, 0, index)


def test_beats_that_follow_each_other_are_one() -> None:
    waiting: deque[Job] = deque([beat(2), beat(3), Fill("ports", [])])
    assert together(beat(1), waiting.popleft) == (beat(3), Fill("ports", []))


def test_changes_that_follow_each_other_are_one_but_for_the_last_of_all() -> None:
    one, two = MapChange("ports", b"1", b"1"), MapChange("ports", b"2", None)
    last = Change([], 3, completes=True)
    waiting: deque[Job] = deque([Change([two], 2), last])
    assert together(Change([one], 1), waiting.popleft) == (Change([one, two], 2), last)
    assert together(last, waiting.popleft) == (last, None)
    assert together(Declare((), anew=True), waiting.popleft) == (Declare((), anew=True), None)
