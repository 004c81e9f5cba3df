"""Whether [[ebpf.export]] can be declared, and how long a copy of a map counts as fresh."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from raft_agent.config.model import Ebpf, ExportSeed, Timing
from raft_agent.config.schema import EXPORT_FIELDS, Field
from raft_agent.config.sources import Sources, Value

# A stamp goes to the leader and comes back a round later, and is told with the next heartbeat.
HEARTBEATS_OF_A_STAMP = 5


def check_exports(
    sources: Sources, check_value: Callable[[Sources, str, Field, Value], Any]
) -> tuple[ExportSeed, ...]:
    """Those that can be declared; what is wrong with others is noted."""
    if not sources.exports:
        return ()
    # The machine's rules are for those who export something.
    from raft_agent.machine.exports import Export, problem_of, problem_together  # noqa: PLC0415

    seeds: list[ExportSeed] = []
    for given in sources.exports:
        checked = {
            name: check_value(sources, f"the exported map's {name}", EXPORT_FIELDS[name], value)
            for name, value in given.items()
        }
        required = {name for name, field in EXPORT_FIELDS.items() if field.required}
        if None in checked.values() or required - checked.keys():
            continue
        seed = ExportSeed(**checked)
        export = Export(**msgspec.structs.asdict(seed))
        problem = problem_of(export) or problem_together(
            export, [Export(**msgspec.structs.asdict(other)) for other in seeds]
        )
        if problem:
            sources.problem(given["map"], f"the map can't be exported: {problem}")
        else:
            seeds.append(seed)
    return tuple(seeds)


def check_freshness(sources: Sources, ebpf: Mapping[str, Any], timing: Mapping[str, Any]) -> None:
    """A copy that is never fresh helps nobody."""
    given = sources.sections["ebpf"].get("fresh_ms")
    if (given is not None and "fresh_ms" not in ebpf) or len(timing) < len(
        sources.sections["timing"]
    ):
        return
    fresh_ms = ebpf.get("fresh_ms", Ebpf().fresh_ms)
    least_ms = HEARTBEATS_OF_A_STAMP * Timing(**timing).heartbeat_interval_ms
    if fresh_ms >= least_ms:
        return
    text = (
        f"ebpf.fresh_ms ({fresh_ms}{'' if given else ', the default'}) must be at least "
        f"{least_ms}, {HEARTBEATS_OF_A_STAMP} heartbeat intervals: how current a node is is known "
        "a few heartbeats later"
    )
    if given is not None:
        sources.problem(given, text)
    elif sources.exports:
        sources.missing(("ebpf",), text)
    elif ebpf.get("enabled") and ebpf.get("pin_dir"):
        sources.notes.append(text)
