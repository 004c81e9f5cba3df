"""`raftctl rebuild`, `doctor --cluster` and `fault flip` as people use them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from raft_agent.api import protocol
from raft_agent.api.host import Failure
from raft_agent.api.protocol import ErrorCode
from raft_agent.storage.datadir import DirectoryLock, load_identity
from raft_agent.storage.mending import REQUEST_NAME
from raftctl.context import Context
from raftctl.doctor_checks import _quorum
from raftctl.doctor_states import _finding
from raftctl.main import cli
from tests.unit.cli.served import Served, json_of, raftctl
from tests.unit.storage.test_mending import damage, with_voters

WRONG = Failure(ErrorCode.STATE_DIFFERS, "This node's state differs", "Run: raftctl rebuild")


def test_a_node_that_differs_is_rebuilt_and_serves_again(
    served: Served, at: tuple[str, str]
) -> None:
    served.host.unfit = WRONG
    refused = raftctl(*at, "propose", "put", "k", "v")
    assert refused.returncode == 1
    assert f"{' '.join(('raftctl', *at))} rebuild" in refused.stderr.decode()
    done = raftctl(*at, "rebuild")
    assert done.returncode == 0
    assert "node-01 serves again" in done.stdout.decode()
    assert "because this node's state differs" in done.stderr.decode()
    assert raftctl(*at, "propose", "put", "k", "v").returncode == 0


def test_a_rebuild_without_a_reason_wants_force(served: Served, at: tuple[str, str]) -> None:
    assert raftctl(*at, "rebuild").returncode == 1
    assert served.host.rebuilt == []
    done = raftctl(*at, "-o", "json", "rebuild", "--force", "--no-wait")
    assert json_of(done) == {"reason": "it was asked to", "last_applied": None}


def test_a_directory_is_told_to_be_mended_at_the_next_start(tmp_path: Path) -> None:
    nothing = raftctl("rebuild", "--data-dir", str(tmp_path))
    assert nothing.returncode == 1
    assert "is not an agent's data directory" in nothing.stderr.decode()
    load_identity(tmp_path)
    lock = DirectoryLock(tmp_path)
    busy = raftctl("rebuild", "--data-dir", str(tmp_path))
    assert busy.returncode == 1
    assert "An agent runs on" in busy.stderr.decode()
    assert "raftctl --node NAME rebuild" in busy.stderr.decode(), "nothing here says its name"
    lock.release()
    done = raftctl("rebuild", "--data-dir", str(tmp_path))
    assert done.returncode == 0
    assert (tmp_path / REQUEST_NAME).exists()


def test_the_agent_that_runs_on_a_directory_is_named_by_what_the_directory_says(
    tmp_path: Path,
) -> None:
    with_voters(tmp_path, 2)
    name = f"n{load_identity(tmp_path)}"
    lock = DirectoryLock(tmp_path)
    busy = raftctl("rebuild", "--data-dir", str(tmp_path))
    lock.release()
    assert f"raftctl --node {name} rebuild" in busy.stderr.decode()


def test_whoever_may_not_enter_the_directory_is_told_which_user_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, **_more: object) -> os.stat_result:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    done = CliRunner().invoke(cli, ["rebuild", "--data-dir", str(tmp_path)])
    assert done.exit_code == 1
    assert f"{tmp_path}/identity: Permission denied" in done.stderr
    assert f"sudo -u raft raftctl rebuild --data-dir {tmp_path}" in done.stderr


def test_the_only_voters_directory_wants_a_backup_or_force(tmp_path: Path) -> None:
    with_voters(tmp_path, 0)
    damage(tmp_path)
    refused = raftctl("rebuild", "--data-dir", str(tmp_path))
    assert refused.returncode == 1
    said = refused.stderr.decode()
    assert "is the only voter" in said
    assert "raftctl snapshot restore FILE --data-dir" in said
    assert "recover --accept-data-loss" in said
    forced = raftctl("rebuild", "--data-dir", str(tmp_path), "--force")
    assert forced.returncode == 0
    assert "recover --accept-data-loss" in forced.stdout.decode()
    assert (tmp_path / REQUEST_NAME).exists()


def test_doctor_has_the_members_compare(served: Served, at: tuple[str, str]) -> None:
    assert raftctl(*at, "propose", "put", "k", "v").returncode == 0
    shown = raftctl(*at, "doctor", "--cluster").stdout.decode()
    assert "node-01 has the state 00000001" in shown
    alone = raftctl(*at, "doctor").stdout.decode()
    assert "has the state" not in alone
    assert served.host.machine.revision == 1


def test_each_outcome_of_a_comparison_has_its_command() -> None:
    result = protocol.StateCheckResult(9, True, [])
    found = {
        state: _finding(protocol.MemberState("node-03", state, "0000000100000007"), result)
        for state in ("agrees", "differs", "unreadable", "silent", "unknown")
    }
    levels = {state: finding.level for state, finding in found.items()}
    assert levels == {
        "agrees": "ok",
        "differs": "fail",
        "unreadable": "fail",
        "silent": "warn",
        "unknown": "warn",
    }
    assert found["differs"].fix == found["unreadable"].fix == "raftctl --node node-03 rebuild"


def test_doctor_fails_for_a_member_that_differs_and_names_the_rebuild() -> None:
    member = protocol.HealthMember(
        "node-03", "a3", "h:3", "voter", "differs", 9, 9, 0, "its state is not the others'"
    )
    health = protocol.HealthResult(True, "node-01", 3, [member])
    _, found = _quorum(Context(), health, set())
    assert (found.level, found.fix) == ("fail", "raftctl --node node-03 rebuild")
    assert found.text == "node-03 at h:3 differs: its state is not the others'"


def test_a_bit_is_turned_on_purpose(served: Served, at: tuple[str, str]) -> None:
    assert raftctl(*at, "propose", "put", "k", "v").returncode == 0
    done = raftctl(*at, "fault", "flip", "k")
    assert done.stdout.decode() == "✓ One bit of k has turned\n"
    assert served.host.machine.get("k").value == b"w"  # type: ignore[union-attr]
    assert raftctl(*at, "fault", "flip", "none").returncode == 4
