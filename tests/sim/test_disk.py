"""The simulated disk, where it has misled the simulator before."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from raft_agent.consensus.types import Configuration
from tests.sim.clock import Clock
from tests.sim.disk import Disk
from tests.sim.options import DiskOptions
from tests.sim.run import run_seed
from tests.sim.shelf import Stored, stored_of


def test_a_snapshot_that_a_full_disk_refuses_has_an_end() -> None:
    clock = Clock()
    disk = Disk(clock, random.Random(0), DiskOptions(50, 100, 0.5, 0.5), Counter())
    disk.is_full = True
    told: list[Stored | None] = []
    disk.keep(stored_of(1, 1, (1, Configuration("c", (), ())), [b"block"]), told.append)
    while clock.advance():
        pass
    assert told == [None]
    assert disk.shelf.newest is None


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(2000643, id="a leader took no snapshot any more after one had failed"),
        pytest.param(2000916, id="the only snapshot was damaged while it took the log's place"),
    ],
)
def test_what_is_no_violation_is_not_told_as_one(seed: int) -> None:
    assert run_seed(seed).failure == ""
