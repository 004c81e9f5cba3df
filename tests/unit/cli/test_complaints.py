"""What people meet who type something unusual: one line that helps, never a traceback."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from raft_agent.api import protocol
from raftctl import doctor_checks, reach
from raftctl.context import Context
from raftctl.errors import CommandError, paste_ready
from raftctl.main import cli
from tests.unit.cli.served import (
    TIMEOUT_S,
    Served,
    clean_environment,
    command,
    json_of,
    raftctl,
)

# --- Numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        "messages --limit 99999999999999999999",
        "events --limit 99999999999999999999999",
        "propose list a --limit 99999999999999999999999",
        "propose put cas 2 --if-revision 99999999999999999999999",
        "propose delete cas --if-revision 99999999999999999999999",
        "watch --interval 99999999999999999999999",
        "--timeout inf status",
        "--timeout nan status",
        "--timeout 1e300 status",
        "bench put --duration nan",
        "bench put --duration 0",
        "bench put --duration inf --warmup nan",
        "bench put --keys 99999999999999999999999",
        "bench put --clients 99999999999999999999999",
    ],
)
def test_a_number_without_sense_is_wrong_usage(arguments: str) -> None:
    done = CliRunner().invoke(cli, ["--socket", "/nowhere", *arguments.split()])
    assert (done.exit_code, done.stdout) == (2, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("Error: Invalid value for '--")
    assert "range" not in last
    assert " to " in last or " at most " in last


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        ("messages --limit x", {}, "'x' is not a whole number"),
        ("--timeout x status", {}, "'x' is not a number"),
        ("status", {"RAFTCTL_FORWARD": "maybe"}, "'maybe' is neither true nor false"),
    ],
)
def test_what_is_no_number_is_said_in_plain_words(
    arguments: str, environment: dict[str, str], words: str
) -> None:
    done = CliRunner().invoke(cli, arguments.split(), env=environment)
    assert done.exit_code == 2
    assert words in done.stderr.splitlines()[-1]
    assert "Recognized" not in done.stderr


def test_a_flag_in_the_environment_may_be_off(served: Served, at: tuple[str, str]) -> None:
    served.host.leader = "node-02"
    assert raftctl(*at, "send", "x", RAFTCTL_FORWARD="0").returncode == 1
    assert raftctl(*at, "send", "x", RAFTCTL_FORWARD="true").returncode == 6


def test_revision_0_means_that_the_key_must_not_exist(at: tuple[str, str]) -> None:
    put = ("propose", "put", "k", "v", "--if-revision", "0")
    assert raftctl(*at, *put).returncode == 0
    again = raftctl(*at, "-o", "json", *put)
    assert (again.returncode, json_of(again)["code"]) == (1, "conflict")


# --- Values ---------------------------------------------------------------------------------------


def test_a_value_that_starts_with_at_is_written_with_two(at: tuple[str, str]) -> None:
    assert raftctl(*at, "propose", "put", "k", "@@x").returncode == 0
    assert raftctl(*at, "propose", "get", "k").stdout == b"@x\n"
    assert "@@" in CliRunner().invoke(cli, ["propose", "put", "--help"]).output


@pytest.mark.parametrize(
    ("value", "status", "words"),
    [
        ("@", 2, "@ needs the name of a file"),
        ("@/", 1, "/ is a directory"),
        ("@/no/such/file", 1, "Can't read /no/such/file: No such file or directory"),
    ],
)
def test_a_file_that_is_none_says_so_and_how_to_write_an_at(
    value: str, status: int, words: str
) -> None:
    done = CliRunner().invoke(cli, ["propose", "put", "k", value])
    assert done.exit_code == status
    assert words in done.stderr
    assert "@@" in done.stderr


def test_a_negative_number_is_taken_behind_two_dashes(at: tuple[str, str]) -> None:
    refused = raftctl(*at, "propose", "put", "neg", "-5")
    assert refused.returncode == 2
    assert "-- in front of it" in refused.stderr.decode()
    assert raftctl(*at, "propose", "put", "--", "neg", "-5").returncode == 0
    assert raftctl(*at, "propose", "get", "neg").stdout == b"-5\n"


# --- Results that can't be written ----------------------------------------------------------------


def into(path: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """raftctl with its standard output in that file."""
    with Path(path).open("wb") as out:
        return subprocess.run(
            command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.PIPE,
            env=clean_environment(),
            timeout=TIMEOUT_S,
            check=False,
        )


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ("status", 1),
        ("-o json status", 1),
        ("-o yaml status", 1),
        ("messages", 1),
        ("propose get k", 1),
        ("propose list k", 1),
        ("send x", 3),
        ("propose put k 2", 3),
        ("-o json propose put k 2", 3),
        ("--help", 1),
        ("--version", 1),
    ],
)
def test_a_full_disk_behind_the_output_is_one_line(
    at: tuple[str, str], arguments: str, status: int
) -> None:
    """A write is done by then, so that its exit status must not say that nothing changed."""
    raftctl(*at, "propose", "put", "k", "v")
    done = into("/dev/full", *at, *arguments.split())
    lines = done.stderr.decode().splitlines()
    assert done.returncode == status
    assert "No space left on device" in lines[0]
    assert not any("Traceback" in line for line in lines)
    assert len(lines) == (2 if status == 3 else 1)
    if status == 3:
        assert "It is done" in lines[1]


def test_a_closed_output_is_no_traceback(at: tuple[str, str]) -> None:
    line = f"{shlex.join(command(*at, 'status'))} >&-"
    done = subprocess.run(
        ["sh", "-c", line], capture_output=True, env=clean_environment(), check=False
    )
    assert b"Traceback" not in done.stderr


# --- Hints ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hint", "ready"),
    [
        ("Look: raftctl health", "Look: raftctl --node n health"),
        ("raftctl status says it, raftctl member list too",
         "raftctl --node n status says it, raftctl --node n member list too"),
        ("raftctl --timeout 30 doctor", "raftctl --node n --timeout 30 doctor"),
        ("sudo raftctl --socket /s doctor", "sudo raftctl --socket /s doctor"),
        ("raftctl --node other health", "raftctl --node other health"),
        ("raftctl export list; raftctl kernel",
         "raftctl --node n export list; raftctl --node n kernel"),
        ("raftctl dev up; raftctl --help; raftctl --version", None),
        ("at a member: raftctl join a b:1", "at a member: raftctl --node n join a b:1"),
        ("raftctl cert show x", None),
        ("", None),
    ],
)  # fmt: skip
def test_commands_in_hints_get_the_node(hint: str, ready: str | None) -> None:
    assert paste_ready(hint, "raftctl --node n") == (hint if ready is None else ready)


def test_a_hint_of_the_agent_can_be_pasted(served: Served, at: tuple[str, str]) -> None:
    served.host.leader = None
    wanted = f"raftctl --socket {served.path} health"
    assert wanted in raftctl(*at, "send", "x").stderr.decode()
    assert wanted in json_of(raftctl(*at, "-o", "json", "send", "x"))["hint"]
    raftctl_words = raftctl(*at, "send", "x").stderr.decode().partition("raftctl ")[2].split()
    assert raftctl(*raftctl_words).returncode == 0


# --- Sockets --------------------------------------------------------------------------------------


def test_an_empty_socket_is_wrong_usage() -> None:
    done = CliRunner().invoke(cli, ["--socket", "", "status"])
    assert done.exit_code == 2
    assert "path" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/nonexistent/x", "/nonexistent/x: No such file or directory"),
        ("/etc/passwd", "/etc/passwd is not a socket"),
        ("/", "/ is a directory"),
    ],
)
def test_a_socket_that_leads_nowhere_names_no_node(path: str, words: str) -> None:
    done = raftctl("--socket", path, "status")
    assert done.returncode == 5
    text = done.stderr.decode()
    assert words in text
    assert "node-0" not in text


def test_who_may_not_open_a_socket_learns_who_may(served: Served, at: tuple[str, str]) -> None:
    served.path.chmod(0)
    denied = raftctl(*at, "send", "x", powerless=True)
    text = denied.stderr.decode()
    assert denied.returncode == 5
    assert f"may not open {served.path}" in text
    assert "mode 0000" in text
    assert "server.ipc_group" in text
    assert "Is it running" not in text


@pytest.mark.parametrize(
    ("program", "at_hand", "shown"),
    [
        ("/srv/raft/.venv/bin/raftctl", None, "sudo /srv/raft/.venv/bin/raftctl --node n status"),
        ("/srv/my raft/raftctl", None, "sudo '/srv/my raft/raftctl' --node n status"),
        ("/usr/bin/raftctl", "/usr/bin/raftctl", "sudo raftctl --node n status"),
        ("/usr/lib/python3/raftctl/main.py", None, "sudo raftctl --node n status"),
    ],
)
def test_sudo_is_told_where_raftctl_is_when_it_does_not_look_there(
    program: str, at_hand: str | None, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [program])
    monkeypatch.setattr(shutil, "which", lambda *_name, **_path: at_hand)
    assert reach.as_root("raftctl --node n status") == shown


def test_doctor_finds_a_socket_that_may_not_be_opened(served: Served, at: tuple[str, str]) -> None:
    served.path.chmod(0)
    done = raftctl(*at, "-o", "json", "doctor", powerless=True)
    found = {item["check"]: item for item in json_of(done)["findings"]}
    assert done.returncode == 1
    assert found["socket"]["level"] == "fail"
    assert "may not open" in found["socket"]["text"]
    assert found["socket"]["fix"] == f"sudo raftctl --socket {served.path} doctor"
    assert "agent" not in found
    assert found["config"]["level"] == "warn"


def test_doctor_asks_the_same_agent_again_with_more_patience(tmp_path: Path) -> None:
    path = tmp_path / "silent"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        done = raftctl("--socket", str(path), "--timeout", "0.2", "-o", "json", "doctor")
    found = {item["check"]: item for item in json_of(done)["findings"]}
    assert found["agent"]["fix"] == f"raftctl --socket {path} --timeout 30 doctor"


# --- Nodes that wait ------------------------------------------------------------------------------


def test_health_of_a_node_in_no_cluster_says_what_it_waits_for(
    served: Served, at: tuple[str, str]
) -> None:
    served.host.fresh_note = "first start: waits for node-02"
    health = raftctl(*at, "health")
    assert health.returncode == 6
    assert health.stdout.decode() == (
        "✗ node-01 belongs to no cluster yet: first start: waits for node-02\n"
    )
    data = json_of(raftctl(*at, "-o", "json", "health"))
    assert (data["quorum"], data["note"]) == (False, "first start: waits for node-02")


def test_doctor_warns_of_what_a_member_has_to_say(served: Served, at: tuple[str, str]) -> None:
    served.host.member_note = "the end of the log is damaged: does not stand for election"
    done = raftctl(*at, "-o", "json", "doctor")
    (note,) = [item for item in json_of(done)["findings"] if item["check"] == "note"]
    assert note["level"] == "warn"
    assert "damaged" in note["text"]
    assert done.returncode == 0


def test_a_transfer_without_a_name_does_not_speak_of_one(
    served: Served, at: tuple[str, str]
) -> None:
    served.host.is_alone = True
    done = raftctl(*at, "leader", "transfer")
    assert done.returncode == 1
    assert "There is no other voter to hand over to\n" in done.stderr.decode()


def test_the_way_round_a_socket_that_is_denied_is_the_command_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(path))  # nobody listens
        monkeypatch.setattr(os, "access", lambda *_a, **_k: False)
        done = CliRunner().invoke(cli, ["--socket", str(path), "propose", "put", "k", "v"])
        alone = CliRunner().invoke(cli, ["--socket", str(path), "health"])
    assert f"sudo raftctl --socket {path} propose put …" in done.stderr
    assert f"sudo raftctl --socket {path} health;" in alone.stderr


def test_doctor_wants_root_for_a_socket_that_it_may_not_look_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: Path) -> os.stat_result:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "lstat", refuse)
    (found,) = doctor_checks.agent(Context(socket=tmp_path / "a.sock"), tmp_path / "a.sock")
    assert found.fix == f"sudo raftctl --socket {tmp_path / 'a.sock'} doctor"


def test_certificates_without_an_endpoint_are_refused() -> None:
    done = CliRunner().invoke(cli, ["--socket", "/nowhere", "--cacert", "ca.pem", "status"])
    assert done.exit_code == 2
    assert "--cacert is for --endpoint" in done.stderr


@pytest.mark.parametrize("command", ["up", "down"])
def test_a_directory_that_cannot_be_read_is_no_traceback(tmp_path: Path, command: str) -> None:
    folder = tmp_path / ("x" * 300)  # ENAMETOOLONG, for root as well
    done = CliRunner().invoke(cli, ["dev", command, "--dir", str(folder)])
    assert done.exit_code == 1
    assert not isinstance(done.exception, OSError)
    assert f"{folder} can't be read: File name too long" in done.stderr


def test_a_write_that_a_follower_could_pass_on_names_that_way(
    served: Served, tmp_path: Path
) -> None:
    served.host.leader = "node-02"
    context = Context(socket=served.path)
    with pytest.raises(CommandError) as refused:
        context.write(protocol.Send(1, "x"), protocol.WriteResult)
    assert refused.value.other_way == (
        f"Or have this node pass it on: raftctl --socket {served.path} --forward …"
    )
    with pytest.raises(CommandError) as forwarded:
        context.write(protocol.Send(1, "x", forward=True), protocol.WriteResult)
    assert forwarded.value.other_way == ""
