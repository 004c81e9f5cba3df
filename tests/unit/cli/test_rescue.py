"""`raftctl recover` and `raftctl snapshot`, as people meet them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raft_agent.api import protocol
from raft_agent.api.host import Failure
from raft_agent.machine.commands import Put
from raftctl import recover
from raftctl.context import Context
from raftctl.errors import NOT_REACHABLE, CommandError
from tests.unit.cli.served import Served, json_of, raftctl, serving

MEMBERS = [
    protocol.SurveyedMember("node-01", "a1", "10.0.0.1:5555", "here", 3, 17),
    protocol.SurveyedMember("node-02", "a2", "10.0.0.2:5555", "survives", 3, 12),
    protocol.SurveyedMember(
        "node-03", "a3", "10.0.0.3:5555", "unreachable", detail="connection refused"
    ),
]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path / "s") as found:
        found.call(found.host.apply_commands, [Put("k", b"v", -1)])
        yield found


def ask(served: Served, *arguments: str) -> tuple[int, str, str]:
    done = raftctl("--socket", str(served.path), *arguments)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_without_a_word_on_what_is_lost_nothing_is_asked(served: Served) -> None:
    status, out, told = ask(served, "recover")
    assert (status, out) == (2, "")
    assert "--accept-data-loss" in told
    assert "--dry-run" in told


def test_a_dry_run_shows_what_each_survivor_has_and_the_one_to_recover_at(served: Served) -> None:
    served.host.recovery = lambda _: protocol.RecoverResult("node-01", MEMBERS)
    status, out, _ = ask(served, "recover", "--dry-run")
    assert status == 0
    assert out.splitlines() == [
        "NAME     ADDRESS        LAST TERM  LAST INDEX  STATE",
        "node-01  10.0.0.1:5555  3          17          this member",
        "node-02  10.0.0.2:5555  3          12          answers",
        "node-03  10.0.0.3:5555  -          -           does not answer: connection refused",
        "✓ node-01 is the one to recover at",
        "  When the lost ones stay off for sure: "
        f"raftctl --socket {served.path} recover --accept-data-loss",
    ]


def test_a_dry_run_where_it_would_be_refused_says_why_and_where_else(served: Served) -> None:
    hint = "At node-02: raftctl --node node-02 recover --accept-data-loss"
    served.host.recovery = lambda _: protocol.RecoverResult("node-02", MEMBERS, "It has more", hint)
    status, out, _ = ask(served, "recover", "--dry-run")
    assert status == 1
    assert out.splitlines()[-2:] == ["✗ It has more", f"  Hint: {hint}"]
    served.host.recovery = lambda _: protocol.RecoverResult(
        "node-02", MEMBERS, "It lives", "See: raftctl health"
    )
    *_, told = ask(served, "recover", "--dry-run")[1].splitlines()
    assert told == f"  Hint: See: raftctl --socket {served.path} health"
    done = raftctl("--socket", str(served.path), "-o", "json", "recover", "--dry-run")
    assert done.returncode == 1
    assert json_of(done)["best"] == "node-02"
    assert json_of(done)["members"][1]["index"] == 12


def test_what_is_refused_is_not_even_asked_for(served: Served) -> None:
    asked: list[bool] = []

    def refuse(accept: bool) -> protocol.RecoverResult | Failure:
        asked.append(accept)
        return protocol.RecoverResult("node-01", MEMBERS, "A leader is known", "Wait")

    served.host.recovery = refuse
    status, out, told = ask(served, "recover", "--accept-data-loss")
    assert (status, out, asked) == (1, "", [False])
    assert "✗ Failed to recover: A leader is known\n  Hint: Wait" in told


def test_a_recovery_says_what_has_begun_who_comes_in_again_and_what_to_do(served: Served) -> None:
    def recover(accept: bool) -> protocol.RecoverResult:
        if accept:
            commands = [Put("k", b"v", -1)] * 20
            served.host.apply_commands(commands)
        return protocol.RecoverResult(
            "node-01", MEMBERS, generation="00ab" if accept else "", index=18 if accept else 0
        )

    served.host.recovery = recover
    status, out, told = ask(served, "recover", "--accept-data-loss")
    assert status == 0, told
    assert out.splitlines() == [
        "✓ Generation 00ab of the cluster has begun with index 18: node-01 leads it",
        "  Come in again by themselves: node-02",
        f"  Replace the lost members: raftctl --socket {served.path} join NAME ADDR",
    ]
    assert "node-03" in told


def test_saved_looked_at_and_restored(served: Served, tmp_path: Path) -> None:
    backup, data_dir = tmp_path / "b.raft", tmp_path / "data"
    status, out, told = ask(served, "snapshot", "save", str(backup))
    assert status == 0, told
    assert out.splitlines()[0] == f"✓ Saved {backup}"
    # Needs no agent.
    shown = raftctl("--socket", "/nowhere", "snapshot", "status", str(backup))
    assert shown.stdout.decode() == "\n".join(out.splitlines()[1:]) + "\n"
    facts = dict(line.split(None, 1) for line in shown.stdout.decode().splitlines())
    assert (facts["Keys:"], facts["Index:"]) == ("1", "1 of term 1")
    assert facts["Members:"] == "node-01 (127.0.0.1:5555)"
    place = ("--data-dir", str(data_dir), "--name", "n", "--address", "10.0.0.9:5555")
    made = raftctl("-o", "json", "snapshot", "restore", str(backup), *place)
    assert json_of(made)["index"] == 1
    assert (data_dir / "identity").is_file()


def test_a_restore_needs_a_name_and_an_address_or_a_configuration(
    served: Served, tmp_path: Path
) -> None:
    backup, data_dir = tmp_path / "b.raft", tmp_path / "data"
    assert ask(served, "snapshot", "save", str(backup))[0] == 0
    done = raftctl("snapshot", "restore", str(backup), "--data-dir", str(data_dir))
    assert done.returncode == 2
    assert b"--config" in done.stderr
    config = tmp_path / "raft.toml"
    config.write_text(
        '[server]\nnode_id = "from-file"\nlisten_addr = "127.0.0.1:5999"\n'
        f'data_dir = "{data_dir}"\n'
    )
    arguments = ("--data-dir", str(data_dir), "--config", str(config))
    made = raftctl("-o", "json", "snapshot", "restore", str(backup), *arguments)
    assert made.returncode == 0, made.stderr
    assert (json_of(made)["name"], json_of(made)["address"]) == ("from-file", "127.0.0.1:5999")
    assert made.stderr == b""
    elsewhere = ("--data-dir", str(tmp_path / "other"), "--config", str(config))
    told = raftctl("snapshot", "restore", str(backup), *elsewhere).stderr.decode()
    assert told.endswith(f"does not look there: its server.data_dir is {data_dir}\n")


def test_what_is_no_backup_is_refused_with_the_place(tmp_path: Path) -> None:
    path = tmp_path / "b.raft"
    path.write_bytes(b"something else, and long enough to be looked at")
    done = raftctl("snapshot", "status", str(path))
    assert done.returncode == 1
    assert f"{path}, byte 0: damaged" in done.stderr.decode()


class Recovered(Context):
    """An agent at which a generation has begun; `answers` are those to its status, the last one
    again and again."""

    answers: list[protocol.StatusResult | CommandError | KeyboardInterrupt]

    def ask(self, *_: Any) -> Any:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, protocol.StatusResult):
            return answer
        raise answer


BEGUN = protocol.RecoverResult("node-01", MEMBERS, generation="00ab", index=18)
GONE = CommandError("Agent node-01 is not reachable: it is gone", NOT_REACHABLE, "Is it running?")


@pytest.mark.parametrize(
    ("why", "told"),
    [
        (GONE, "Generation 00ab has begun, but Agent node-01 is not reachable: it is gone"),
        (KeyboardInterrupt(), "Generation 00ab has begun, but this was interrupted"),
    ],
)
def test_a_recovery_that_has_begun_never_ends_as_one_that_has_not(
    monkeypatch: pytest.MonkeyPatch, why: CommandError | KeyboardInterrupt, told: str
) -> None:
    monkeypatch.setattr(recover, "_LEADS_WITHIN_S", 0.0)
    context = Recovered()
    context.answers = [why]
    with pytest.raises(CommandError) as failed:
        recover._wait_until_it_leads(context, BEGUN)
    assert (failed.value.error, failed.value.code) == (told, "unknown_outcome")
    assert "raftctl status" in failed.value.hint


def test_a_passing_failure_ends_no_wait_for_the_new_generation(served: Served) -> None:
    served.call(served.host.apply_commands, [Put("k", b"v", -1)] * 20)
    context = Recovered()
    context.answers = [GONE, served.call(served.host.status)]
    recover._wait_until_it_leads(context, BEGUN)
    assert len(context.answers) == 1
