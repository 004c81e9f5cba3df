"""A majority is lost for good, with every set of survivors: see `rescue.py`."""

from __future__ import annotations

import gc
from collections import Counter

import pytest

from tests.sim.rescue_runs import cases, run_case

SEEDS = {3: range(4), 4: range(1), 5: range(1)}

# What must have happened somewhere in the set, or its checks had nothing to look at.
HAPPENS = (
    "recovered",
    "abandoned",
    "dead_returned",
    "superseded",
    "generation_former",
    "recovery_undone_by_crash",
    "recovery_survived_crash",
    "recovery_refused_leader_known",
    "recovery_refused_quorum_answers",
    "recovery_refused_recover_elsewhere",
    "snapshot_installed",
)


@pytest.fixture(scope="module")
def runs() -> tuple[Counter[str], list[str]]:
    gc.disable()
    seen: Counter[str] = Counter()
    failed: list[str] = []
    for nodes, seeds in SEEDS.items():
        for seed in seeds:
            for survivors in cases(nodes):
                try:
                    seen.update(run_case(seed, nodes, survivors))
                except Exception as error:
                    failed.append(f"run_case({seed}, {nodes}, {survivors}): {error}")
    gc.enable()
    gc.collect()
    return seen, failed


def test_no_set_of_survivors_breaks_a_rule(runs: tuple[Counter[str], list[str]]) -> None:
    assert runs[1] == []


@pytest.mark.parametrize("what", HAPPENS)
def test_the_runs_are_not_vacuous(runs: tuple[Counter[str], list[str]], what: str) -> None:
    assert runs[0][what] > 0


def test_every_set_that_is_no_majority_is_a_case() -> None:
    assert cases(3) == [(0,), (1,), (2,)]
    assert len(cases(4)) == 4 + 6
    assert len(cases(5)) == 5 + 10


def test_a_run_replays_exactly() -> None:
    assert run_case(1, 3, (0,)) == run_case(1, 3, (0,))
