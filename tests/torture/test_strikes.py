"""Strikes on agents that do not do what was expected of them, and what is left of strikes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.agents import wait_for
from tests.kernel import netns
from tests.torture import operating
from tests.torture.stage import Asked, Stage, end_by_itself
from tests.torture.strikes import NotNow, Strike, disks, machines, members, processes
from tests.torture.strikes.processes import ENOUGH_MEMORY, LITTLE_MEMORY

ON_PROCESSES = (
    processes.Kill,
    processes.KillLeader,
    processes.Stop,
    processes.Blink,
    processes.FewFiles,
    processes.LittleMemory,
    disks.PowerFailure,
    disks.ElectionPower,
    disks.FailedSync,
    disks.TurnedBits,
    disks.LostDisk,
    members.Move,
)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(operating, "_PAUSE_S", 0.0)
    made = Stage(tmp_path)
    made.one.start()
    try:
        yield made
    finally:
        made.end()


def strike_of(kind: type[Strike], stage: Stage) -> Strike:
    made = kind(stage, random.Random(1), lasts_s=1.0)
    made.operator = Asked(stage)
    return made


def test_nothing_that_a_helper_has_started_goes_on_when_it_is_ended(stage: Stage) -> None:
    place = stage.directory / "pid"
    helper = stage.helper(f"while :; do bash -c 'echo $$ > {place}; exec sleep 600'; done")
    child = wait_for("its child", lambda: (place.exists() and place.read_text()) or None)
    stage.end_helper(helper)
    assert helper.returncode == 0
    assert not Path(f"/proc/{int(child)}").exists()


@pytest.mark.parametrize("kind", ON_PROCESSES)
def test_who_ended_by_itself_is_not_struck_and_is_seen(kind: type[Strike], stage: Stage) -> None:
    end_by_itself(stage.one)
    strike = strike_of(kind, stage)
    with pytest.raises(NotNow):
        strike.begin()
    strike.let_go()
    assert not stage.one.may_end
    assert stage.one.reap() == -9


def test_no_power_fails_in_an_election_that_nobody_can_see(stage: Stage) -> None:
    stage.answers = False
    with pytest.raises(NotNow):
        strike_of(disks.ElectionPower, stage).begin()
    assert stage.one.is_running
    assert stage.disk.commands == []


def test_a_member_without_files_goes_on(stage: Stage) -> None:
    with pytest.raises(NotNow):
        strike_of(disks.TurnedBits, stage).begin()
    assert stage.one.is_running


def test_bits_turn_where_something_stands(stage: Stage) -> None:
    log = stage.one.agent.data_dir / "log"
    log.mkdir(parents=True)
    before = b"entries" + bytes(5000)
    (log / "segment").write_bytes(before)
    strike_of(disks.TurnedBits, stage).begin()
    after = (log / "segment").read_bytes()
    assert after[:7] != before[:7]
    assert after[7:] == before[7:]
    assert stage.one.may_end


def test_nothing_is_left_of_little_memory(stage: Stage) -> None:
    agent = stage.one.agent
    first = agent.pid
    strike = strike_of(processes.LittleMemory, stage)
    strike.begin()
    assert stage.one.may_end
    strike.end()
    assert not stage.one.may_end
    assert stage.one.is_running
    assert agent.pid != first
    told = agent.log_text().splitlines()
    assert [line for line in told if line.startswith("torture")] == [LITTLE_MEMORY, ENOUGH_MEMORY]


def test_who_ended_with_little_memory_is_started(stage: Stage) -> None:
    strike = strike_of(processes.LittleMemory, stage)
    strike.begin()
    end_by_itself(stage.one)
    strike.end()
    strike.settle()
    assert stage.one.is_running


def backup_of(stage: Stage, *answers: tuple[bool, str]) -> tuple[members.Backup, Asked]:
    strike = members.Backup(stage, random.Random(1), lasts_s=1.0)
    operator = strike.operator = Asked(stage)
    operator.answers = [*answers]
    return strike, operator


def test_a_backup_that_was_saved_is_there(stage: Stage) -> None:
    strike, _ = backup_of(stage, (True, "saved"))
    strike.begin()
    with pytest.raises(AssertionError, match="no file"):
        strike.settle()


def test_a_backup_is_sound(stage: Stage) -> None:
    strike, operator = backup_of(stage, (True, "saved"), (False, "damaged at byte 7"))
    strike.begin()
    strike.file.touch()
    with pytest.raises(AssertionError, match="damaged at byte 7"):
        strike.settle()
    assert operator.commands == ["snapshot save", "snapshot status"]


def test_a_backup_that_was_refused_is_taken_in_the_end(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operating, "PATIENCE_S", 0.0)
    strike, _ = backup_of(stage, (False, "no quorum"), (False, "still none"))
    assert "no quorum" in strike.begin()
    with pytest.raises(AssertionError, match="still none"):
        strike.settle()


def test_a_program_that_nobody_puts_back_is_a_complaint(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operating, "PATIENCE_S", 0.0)
    is_attached = [True, False]
    monkeypatch.setattr(machines, "_is_attached", lambda _: is_attached.pop(0))
    monkeypatch.setattr(netns, "tc", lambda *_: "")
    strike = strike_of(machines.Detach, stage)
    strike.begin()
    with pytest.raises(AssertionError, match="attached again"):
        strike.settle()


def test_a_program_that_is_not_there_can_not_be_detached(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "_is_attached", lambda _: False)
    with pytest.raises(NotNow):
        strike_of(machines.Detach, stage).begin()
