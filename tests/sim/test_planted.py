"""Every fault that is planted in the code is caught: the checks of the simulator bite."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from raft_agent.consensus import quorum
from tests.sim.cluster import Cluster
from tests.sim.options import options_for
from tests.sim.planted.catalogue import FAULTS
from tests.sim.planted.fault import (
    Edit,
    Fault,
    StaleFaultError,
    complaint,
    fails_unit_test,
    planted,
)

# From the fault's seed on. One is enough as long as neither core nor simulator changes.
PATIENCE_RUNS = 25

IN_RUNS = [fault for fault in FAULTS if not fault.unit_test]
IN_UNIT_TESTS = [fault for fault in FAULTS if fault.unit_test]


@pytest.fixture(autouse=True)
def _without_collecting() -> Iterator[None]:
    """A run makes few cycles but many objects: to look for the former doubles its time."""
    gc.disable()
    yield
    gc.enable()
    gc.collect()


@pytest.mark.parametrize("fault", IN_RUNS, ids=lambda fault: str(fault.name))
def test_the_simulator_catches(fault: Fault) -> None:
    told = ""
    for seed in range(fault.seed, fault.seed + PATIENCE_RUNS):
        told = complaint(fault, seed)
        if told:
            break
    assert told, (
        f"{fault.wrong}: and {PATIENCE_RUNS} runs from seed {fault.seed} on noticed nothing"
    )
    assert any(rule in told for rule in fault.rules), f"caught by something else: {told}"


@pytest.mark.parametrize("fault", IN_UNIT_TESTS, ids=lambda fault: str(fault.name))
def test_a_test_of_the_core_catches(fault: Fault) -> None:
    assert fails_unit_test(fault), f"{fault.wrong}: and {fault.unit_test} passes"


@pytest.mark.parametrize("focus", sorted({f.focus for f in FAULTS}, key=lambda f: f.__name__))
def test_narrowed_runs_find_nothing_in_the_code_as_it_is(focus: object) -> None:
    assert callable(focus)
    for seed in (1, 2):
        Cluster(seed, focus(options_for(seed))).run()


def test_at_least_twenty_faults_are_caught_by_simulated_runs() -> None:
    assert len(IN_RUNS) >= 20
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


def test_a_fault_is_in_the_code_only_while_it_is_planted() -> None:
    fault = next(fault for fault in FAULTS if fault.name == "half_is_a_majority")
    code = quorum._majority.__code__
    with planted(fault):
        assert quorum._majority((1, 2), (1,))
    assert quorum._majority.__code__ is code
    assert not quorum._majority((1, 2), (1,))


@pytest.mark.parametrize(
    "old", ["a line that is not there", "configuration"], ids=["gone", "many times"]
)
def test_a_fault_whose_place_has_changed_is_an_error(old: str) -> None:
    edit = Edit("raft_agent.consensus.quorum", old, "pass")
    with pytest.raises(StaleFaultError, match="not once"), planted(Fault("x", "", (edit,), ())):
        pass


def test_a_fault_that_changes_nothing_is_an_error() -> None:
    """Such as one in a constant of a module, which is read when the module is imported."""
    edit = Edit("raft_agent.consensus.quorum", '"""Majorities', '"""Minorities')
    with pytest.raises(StaleFaultError, match="nothing"), planted(Fault("x", "", (edit,), ())):
        pass
