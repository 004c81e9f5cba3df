"""One run: a cluster, clients, a nemesis, and then the verdict."""

from __future__ import annotations

import itertools
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.agents import wait_for
from tests.torture import checks, contents, strikes
from tests.torture.alarms import LOGS, alarms
from tests.torture.history import (
    WATCHES,
    Acknowledged,
    Deed,
    Record,
    Writer,
    acknowledged_ns,
    now_ns,
    read_deeds,
    read_records,
)
from tests.torture.maps import MapWatch
from tests.torture.nemesis import Nemesis
from tests.torture.plan import Plan
from tests.torture.world import Options, World, clients, end_clients, world

SERVES = "it serves again in time"
NEMESIS = "the nemesis sees nothing strange"
MAPS = "exported maps tell one story"
CONTENTS = "all members hold the same keys"
_BEGUN_BYTES = 8192
WEIGHTS = {kind.kind: weight for kind, weight in strikes.WEIGHTS.items()}


@dataclass
class Verdict:
    """`complaints` by check; `unavailable_ms`: the longest time without an acknowledged write."""

    seed: int
    seconds: float = 0.0
    complaints: dict[str, list[str]] = field(default_factory=dict)
    operations: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    strikes: Counter[str] = field(default_factory=Counter)
    recoveries: list[tuple[str, float]] = field(default_factory=list)
    unavailable_ms: float = 0.0
    healed_s: float = 0.0
    maps_compared: int = 0


def torture(
    directory: Path,
    options: Options,
    minutes: float,
    weights: Mapping[str, int] = WEIGHTS,
) -> Verdict:
    """Strike for so long, heal, and check. All that was written stays in `directory`. Whatever ends
    the run early is a complaint like any other, and what was noted until then is judged all the
    same."""
    verdict = Verdict(options.seed)
    began_ns = now_ns()
    deeds = Writer(directory / "nemesis.jsonl")
    try:
        with world(directory, options) as made:
            _strike(made, Plan(options.seed, weights), minutes, deeds, verdict)
    except Exception:  # it is told, and the next seed has its turn
        verdict.complaints["the run comes to its end"] = [traceback.format_exc()]
    finally:
        deeds.close()
    verdict.seconds = (now_ns() - began_ns) / 1e9
    strange = alarms(directory)
    if strange:
        verdict.complaints[LOGS] = strange
    _judge(
        verdict, read_records(directory / "history.jsonl"), read_deeds(directory / "nemesis.jsonl")
    )
    return verdict


def _strike(made: World, plan: Plan, minutes: float, deeds: Writer, verdict: Verdict) -> None:
    history = made.directory / "history.jsonl"
    with MapWatch(made) as maps, clients(made) as working:
        nemesis = Nemesis(made, deeds, Acknowledged(history))
        wait_for("the clients to begin", lambda: _has_begun(history), timeout_s=90)
        try:
            nemesis.run(plan, now_ns() + int(minutes * 60e9))
        except AssertionError as error:
            nemesis.complaints.append(str(error))
        verdict.recoveries = nemesis.recoveries
        verdict.healed_s = nemesis.heal()
        if verdict.healed_s < float("inf"):
            nemesis.compare_states()
        told = end_clients(working, made.directory)
        if told is not None:
            nemesis.complaints.append(told)
        verdict.maps_compared = maps.compared
        records = read_records(history)
        found = {
            NEMESIS: nemesis.complaints,
            SERVES: nemesis.delays,
            MAPS: maps.problems(records),
            CONTENTS: contents.problems(made, records),
        }
        verdict.complaints |= {check: strange for check, strange in found.items() if strange}


def _has_begun(history: Path) -> bool | None:
    return True if history.exists() and history.stat().st_size > _BEGUN_BYTES else None


def _judge(verdict: Verdict, records: list[Record], deeds: list[Deed]) -> None:
    verdict.complaints |= checks.check_all(records)
    asked = [record for record in records if record.kind not in WATCHES]
    verdict.operations = len(asked)
    verdict.outcomes = Counter(record.outcome for record in asked)
    verdict.strikes = Counter(deed.kind for deed in deeds)
    acks = acknowledged_ns(records)
    gaps = [(b - a) / 1e6 for a, b in itertools.pairwise(acks)]
    verdict.unavailable_ms = max(gaps, default=0.0)
