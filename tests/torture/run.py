"""One run: a cluster, clients, a nemesis, and then the verdict."""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.agents import wait_for
from tests.torture import checks, strikes
from tests.torture.history import Deed, Record, Writer, now_ns, read_deeds, read_records
from tests.torture.maps import MapWatch
from tests.torture.nemesis import Nemesis
from tests.torture.plan import Plan
from tests.torture.world import Options, clients, end_clients, world

SERVES = "it serves again in time"
_BEGUN_BYTES = 8192
# What an agent's log holds only when something is wrong that should never be.
_ALARMS = re.compile(r"Traceback|must never happen|invariant|never retrieved|Assertion", re.I)
_LEADS = re.compile(r" (node-\d+) t(\d+) leader: leads from now on")
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
    """Strike for so long, heal, and check. All that was written stays in `directory`."""
    verdict = Verdict(options.seed)
    began_ns = now_ns()
    deeds = Writer(directory / "nemesis.jsonl")
    try:
        with world(directory, options) as made, MapWatch(made) as maps, clients(made) as working:
            nemesis = Nemesis(made, deeds)
            wait_for("the clients to begin", lambda: _has_begun(directory), timeout_s=90)
            try:
                nemesis.run(Plan(options.seed, weights), now_ns() + int(minutes * 60e9))
            except AssertionError as error:
                nemesis.complaints.append(str(error))
            verdict.healed_s = nemesis.heal()
            if verdict.healed_s < float("inf"):
                nemesis.compare_states()
            told = end_clients(working, directory)
            if told is not None:
                nemesis.complaints.append(told)
            verdict.maps_compared = maps.compared
            strange = maps.problems(read_records(directory / "history.jsonl"))
            if strange:
                verdict.complaints["exported maps tell one story"] = strange
    finally:
        deeds.close()
    verdict.seconds = (now_ns() - began_ns) / 1e9
    verdict.recoveries = nemesis.recoveries
    if nemesis.complaints:
        verdict.complaints["the nemesis sees nothing strange"] = nemesis.complaints
    if nemesis.delays:
        verdict.complaints[SERVES] = nemesis.delays
    strange = alarms(directory)
    if strange:
        verdict.complaints["the agents' logs tell of nothing strange"] = strange
    _judge(
        verdict, read_records(directory / "history.jsonl"), read_deeds(directory / "nemesis.jsonl")
    )
    return verdict


def _has_begun(directory: Path) -> bool | None:
    history = directory / "history.jsonl"
    return True if history.exists() and history.stat().st_size > _BEGUN_BYTES else None


def alarms(directory: Path) -> list[str]:
    """What the logs tell of that must never be: alarms, and two leaders of a term (section 5.2 of
    the paper)."""
    found = []
    leaders: dict[str, set[str]] = defaultdict(set)
    for log in sorted(directory.glob("node-*/agent.log")):
        for line in log.read_text(errors="replace").splitlines():
            if _ALARMS.search(line):
                found.append(f"{log.parent.name}: {line}")
            leads = _LEADS.search(line)
            if leads is not None:
                leaders[leads[2]].add(leads[1])
    found += [
        f"term {term} has several leaders: {sorted(names)}"
        for term, names in leaders.items()
        if len(names) > 1
    ]
    return found[:10]


def _judge(verdict: Verdict, records: list[Record], deeds: list[Deed]) -> None:
    verdict.complaints |= checks.check_all(records)
    asked = [record for record in records if record.kind not in ("key_watch", "message_watch")]
    verdict.operations = len(asked)
    verdict.outcomes = Counter(record.outcome for record in asked)
    verdict.strikes = Counter(deed.kind for deed in deeds)
    acks = sorted(r.returned_ns for r in asked if r.outcome == "ok" and r.index)
    gaps = [(b - a) / 1e6 for a, b in itertools.pairwise(acks)]
    verdict.unavailable_ms = max(gaps, default=0.0)
