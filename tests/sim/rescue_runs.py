"""Runs of a cluster that is rescued: each combination of survivors, or any."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import combinations

from tests.sim.options import Options, options_for
from tests.sim.rescue import RescuedCluster


def options_of(seed: int, nodes: int) -> Options:
    """Logs that grow apart before the majority is lost; nobody else changes the members."""
    options = options_for(seed, nodes=nodes, events=900)
    chance = random.Random(f"rescue/{seed}/{nodes}")
    apart = ("isolate_leader", "partition", "crash", "burst", "one_way", "pause", "slow_disk")
    faults = [fault for fault in apart if chance.random() < 0.7]
    if options.settings.audit_interval_us:
        faults.append("flip_state")
    return replace(
        options,
        nodes=nodes,
        spares=0,
        operator=None,
        skew_ppm=(0,) * nodes,
        wall_ahead_ms=(0,) * nodes,
        calm_start=True,
        faults=tuple(faults),
        snapshot_every=chance.choice((0, 0, 5, 20)),
        clients=replace(
            options.clients, store=0.0, exports=0.0, lease=0.0, clients=4, think_us=20_000
        ),
    )


def cases(nodes: int) -> list[tuple[int, ...]]:
    """Every set of survivors that is no majority."""
    fewer_than = nodes // 2 + 1
    return [
        survivors
        for count in range(1, fewer_than)
        for survivors in combinations(range(nodes), count)
    ]


def run_case(seed: int, nodes: int, survivors: tuple[int, ...]) -> Counter[str]:
    """One run; what happened in it, by name. Raises Violation, or whatever the core raises."""
    chance = random.Random(f"rescue/{seed}/{nodes}/{survivors}")
    dead = [index for index in range(nodes) if index not in survivors]
    returning = [index for index in dead if chance.random() < 0.7]
    cluster = RescuedCluster(seed, options_of(seed, nodes), survivors, returning)
    cluster.run()
    return cluster.seen


def run_any(seed: int) -> None:
    """The run of `seed` among all sizes and survivors."""
    chance = random.Random(f"rescue/{seed}")
    nodes = chance.choice((3, 3, 4, 5, 5))
    run_case(seed, nodes, chance.choice(cases(nodes)))
