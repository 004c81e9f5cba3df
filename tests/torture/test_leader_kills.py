"""What counts as the time without a write around a kill of the leader."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from tests.torture import checks, leader_kills
from tests.torture.history import Outcome, Record, acknowledged_ns
from tests.torture.leader_kills import gap_ms

MS = 1_000_000


def record(at_ms: int, kind: str = "served", outcome: Outcome = "ok", *, index: int = 7) -> Record:
    return Record(1, kind, "put", 0, at_ms * MS, outcome, index=index)


def test_only_answers_to_writes_are_acknowledgements() -> None:
    records = [
        record(5),
        record(1),
        record(2, "key_watch"),
        record(3, "message_watch"),
        record(4, outcome="unknown"),
        record(6, outcome="no"),
        record(7, index=0),
    ]
    assert acknowledged_ns(records) == [1 * MS, 5 * MS]


def test_the_gap_is_the_one_around_the_kill() -> None:
    acks = [at * MS for at in (0, 900, 1000, 1300, 1310)]
    assert gap_ms(acks, 1100 * MS) == 300
    assert gap_ms(acks[:3], 1100 * MS) == 20_000


class Run:
    """Of the program, in which `kill_leaders` comes to these moments or problems."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
        self.moments = [1100 * MS]
        self.problem = ""
        self.alarms: list[str] = []
        self.records = [record(1000), record(1300)]
        self.place = place
        monkeypatch.setattr(tempfile, "tempdir", str(place))
        monkeypatch.setattr(sys, "argv", ["leader_kills"])
        monkeypatch.setattr(leader_kills, "missing", lambda: None)
        monkeypatch.setattr(leader_kills, "end_in_order", lambda: None)
        monkeypatch.setattr(leader_kills, "alarms", lambda _: self.alarms)
        monkeypatch.setattr(leader_kills, "kill_leaders", lambda *_: self._kill_leaders())
        monkeypatch.setattr(leader_kills, "read_records", lambda _: self.records)

    def _kill_leaders(self) -> list[int]:
        assert not self.problem, self.problem
        return self.moments

    def kept(self) -> bool:
        return any(self.place.iterdir())


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    return Run(monkeypatch, tmp_path)


def test_a_run_in_which_all_was_well_leaves_nothing(run: Run) -> None:
    assert leader_kills.main() == 0
    assert not run.kept()


def test_clients_that_end_with_anything_wrong_fail_a_run_and_its_files_stay(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run.problem = "the clients ended with 1"
    assert leader_kills.main() == 1
    said = capsys.readouterr().out
    assert "the clients ended with 1" in said
    assert f"history and logs: {run.place}" in said
    assert run.kept()


def test_an_alarm_in_a_log_fails_a_run(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.alarms = ["node-01: Traceback"]
    assert leader_kills.main() == 1
    assert "node-01: Traceback" in capsys.readouterr().out


def test_a_history_that_can_not_be_fails_a_run(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checks, "check_all", lambda _: {"once": ["twice"]})
    assert leader_kills.main() == 1
    assert "once: twice" in capsys.readouterr().out
    assert run.kept()


def test_a_cluster_that_is_away_for_too_long_fails_a_run(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run.records = [record(1000), record(3000)]
    assert leader_kills.main() == 1
    assert "the 99th percentile is 2000 ms" in capsys.readouterr().out
