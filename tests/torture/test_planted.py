"""What counts as the find of a planted fault."""

from __future__ import annotations

import pytest

from tests.torture import planted
from tests.torture.alarms import LOGS
from tests.torture.checks import CHECKS
from tests.torture.planted import PLANTED, finds, look_for
from tests.torture.run import CONTENTS, MAPS, NEMESIS, SERVES, Verdict

MACHINES = "the machines come back"


@pytest.mark.parametrize(
    ("check", "complaint"),
    [
        (SERVES, "12.1 s after the end of kill, and after all agents were up, no write was served"),
        (NEMESIS, "after join: waited 60 s in vain for node-04 to be a voter"),
        (NEMESIS, "the clients ended with None: "),
        (NEMESIS, "node-02 does not end after SIGTERM"),
        (NEMESIS, "waited 120 s in vain for a leader"),
        (CONTENTS, "the members' stores do not come to one revision: {'node-01': None}"),
        (LOGS, "no log tells of a leader"),
        (MACHINES, "too few writes were acknowledged within 300 s"),
    ],
)
def test_what_the_machine_may_be_the_cause_of_is_no_find(check: str, complaint: str) -> None:
    assert finds({check: [complaint]}) == []


@pytest.mark.parametrize(
    ("check", "complaint"),
    [
        *((check, "no") for check in CHECKS),
        (MAPS, "two stories"),
        (LOGS, "node-01: Traceback"),
        (NEMESIS, "node-02 ended by itself with status 1: a segment is missing"),
        (NEMESIS, "after fsync_fails: node-01 says: its state differs from the other members'"),
        (NEMESIS, "the members' states are not equal in the end: {'node-01': 'differs'}, digests"),
        (CONTENTS, "node-02 and node-01 differ in ['k']"),
        (CONTENTS, "node-01 differs from what was read last in ['k']"),
        (MACHINES, "node-02 ended by itself: refuses to start"),
    ],
)
def test_what_only_a_fault_explains_is_one(check: str, complaint: str) -> None:
    late = {SERVES: ["late"]}
    assert finds({**late, check: [complaint]}) == [f"{check}: {complaint}"]


def test_the_search_goes_on_until_there_is_a_find(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    verdicts = [
        Verdict(1, complaints={NEMESIS: ["the clients ended with None: "]}),
        Verdict(2),
        Verdict(3, complaints={SERVES: ["late"], LOGS: ["node-01: Traceback"]}),
    ]
    monkeypatch.setattr(planted, "torture", lambda *_: verdicts.pop(0))
    _, runs, told = look_for(PLANTED[0], 1, limit_minutes=10)
    assert runs == 3
    assert told == f"{LOGS}: node-01: Traceback"
