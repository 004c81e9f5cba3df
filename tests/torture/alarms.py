"""What the agents' logs tell of that must never be."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from tests.torture.strikes.processes import ENOUGH_MEMORY, LITTLE_MEMORY

LOGS = "the agents' logs tell of nothing strange"
NOBODY_LED = "no log tells of a leader"
_ALARMS = re.compile(
    r"Traceback|must never happen|invariant|never retrieved|Assertion|"
    r"differs? from the other|no majority of the members has equal states",
    re.I,
)
_LEADS = re.compile(r" (node-\d+) t(\d+) leader: leads from now on")
_OF_ANOTHER = re.compile(r"the state of (node-\d+) differs")
_DISPUTED = "no majority of the members has equal states"
_SHOWN = 10


def alarms(directory: Path) -> list[str]:
    """Alarms of all agents, and two leaders of a term (section 5.2 of the paper). Whose memory was
    taken may say and do what it likes until it is started anew."""
    logs = {
        log.parent.name: log.read_text(errors="replace").splitlines()
        for log in sorted(directory.glob("node-*/agent.log"))
    }
    starved = {name for name, lines in logs.items() if any(LITTLE_MEMORY in x for x in lines)}
    found = []
    leaders: dict[str, set[str]] = defaultdict(set)
    for name, lines in logs.items():
        is_starved = False
        for line in lines:
            is_starved = (is_starved or LITTLE_MEMORY in line) and ENOUGH_MEMORY not in line
            if _ALARMS.search(line) and not is_starved and not _is_of(starved, line):
                found.append(f"{name}: {line}")
            leads = _LEADS.search(line)
            if leads is not None:
                leaders[leads[2]].add(leads[1])
    found += [
        f"term {term} has several leaders: {sorted(names)}"
        for term, names in leaders.items()
        if len(names) > 1
    ]
    return found[:_SHOWN] if leaders else [*found[:_SHOWN], NOBODY_LED]


def _is_of(starved: set[str], line: str) -> bool:
    """Whether another member tells what became of one whose memory was taken."""
    of_another = _OF_ANOTHER.search(line)
    return (of_another is not None and of_another[1] in starved) or (
        _DISPUTED in line and bool(starved)
    )
