from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from raftctl.framework import RaftCommand, RaftGroup
from raftctl.main import COMMANDS, cli

CONTRACT = """
status; send; messages; watch; propose put; propose get; propose delete; propose list;
propose watch; propose txn; lease grant; lease keepalive; lease revoke; lock; join; leave;
member list; member promote; member update; leader transfer; health; snapshot save;
snapshot status; snapshot restore; recover; cert ca; cert node; cert client; cert csr; cert sign;
cert show; export add; export list; export remove; export dump; export watch; kernel; fault drop;
fault partition; fault heal; bench put; bench get; bench send; dev up; dev down; top; events;
doctor; debug bundle
"""
PATHS = [path.strip() for path in CONTRACT.replace("\n", " ").split(";")]


def commands(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


ALL = dict(commands(cli))


@pytest.mark.parametrize("path", PATHS)
def test_every_command_of_the_contract_is_there(path: str) -> None:
    assert tuple(path.split()) in ALL


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_help_shows_an_example_that_names_the_command(path: tuple[str, ...]) -> None:
    command = ALL[path]
    assert isinstance(command, RaftCommand | RaftGroup)
    done = CliRunner().invoke(cli, [*path, "--help"])
    assert done.exit_code == 0
    _usage, found, examples = done.output.partition("Examples:\n")
    assert found
    assert path[0] in examples
    assert command.get_short_help_str(100)


@pytest.mark.parametrize(
    "path",
    [path for path, command in ALL.items() if isinstance(command, click.Group)],
    ids=" ".join,
)
def test_no_line_of_a_list_of_commands_is_cut_off(path: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli, [*path, "--help"], terminal_width=80)
    listed = done.output.partition("\nCommands:\n")[2].partition("\nExamples:\n")[0]
    assert listed
    assert "..." not in listed


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_of_commands_says_what_the_commands_say(name: str) -> None:
    line = COMMANDS[name][2]
    assert line.endswith((".", ")"))


@pytest.mark.parametrize(
    "arguments",
    [
        "nonsense",
        "status extra",
        "send",
        "--timeout 0 status",
        "--node a/b status",
        "-o xml status",
        "messages --limit 0",
        "propose put k v --if-absent --if-revision 3",
        "propose get ''",
        "propose put k v --lease 0",
        "propose txn",
        "lease grant 0",
        "lease keepalive x",
        "lock ''",
        "lock x --ttl soon",
        "bench put --key-size 8",
        "bench put --clients 1 --processes 2",
        "dev up --nodes 0",
        "dev up --isolated --http",
        "completion tcsh",
    ],
)
def test_wrong_usage_has_exit_status_2(arguments: str) -> None:
    words = ["" if word == "''" else word for word in arguments.split()]
    done = CliRunner().invoke(cli, words)
    assert (done.exit_code, done.stdout) == (2, "")


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        ("stauts", "raftctl status"),
        ("propose gte k", "raftctl propose get"),
        ("get k", "raftctl propose get"),
        ("transfer", "raftctl leader transfer"),
    ],
)
def test_a_command_that_does_not_exist_leads_to_the_one_that_was_meant(
    arguments: str, meant: str
) -> None:
    done = CliRunner().invoke(cli, arguments.split(), prog_name="raftctl")
    assert (done.exit_code, done.stdout) == (2, "")
    assert meant in done.stderr.partition("did you mean")[2]


def test_a_command_that_is_like_no_other_is_refused_without_a_guess() -> None:
    done = CliRunner().invoke(cli, ["xyzzy"], prog_name="raftctl")
    assert done.exit_code == 2
    assert "No such command 'xyzzy'" in done.stderr
    assert "did you mean" not in done.stderr


def test_an_unknown_command_that_looks_like_an_option_is_a_usage_error() -> None:
    done = CliRunner().invoke(cli, ["--", "-text"], prog_name="raftctl")
    assert done.exit_code == 2
    assert "No such" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_names_the_program(shell: str) -> None:
    done = CliRunner().invoke(cli, ["completion", shell])
    assert done.exit_code == 0
    assert "_RAFTCTL_COMPLETE" in done.output


def test_commands_are_completed() -> None:
    words = {"COMP_WORDS": "raftctl propose de", "COMP_CWORD": "2"}
    done = CliRunner().invoke(
        cli, [], prog_name="raftctl", env={**words, "_RAFTCTL_COMPLETE": "bash_complete"}
    )
    assert done.output.split() == ["plain,delete"]


def test_a_key_that_is_no_utf8_is_refused() -> None:
    done = CliRunner().invoke(cli, ["propose", "get", "a\udcff"])
    assert done.exit_code == 2
    assert "is not UTF-8" in done.stderr


HEAVY = {
    "asyncio",
    "uvloop",
    "rich",
    "tomlkit",
    "concurrent",
    "ssl",
    "subprocess",
    "multiprocessing",
}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["--socket", "/nowhere", "status"]]
)
def test_nothing_heavy_is_imported_before_it_is_needed(arguments: list[str]) -> None:
    script = (
        "import sys\n"
        "from raftctl.main import main\n"
        f"sys.argv = ['raftctl', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('MODULES', *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    modules = set(done.stdout.partition("MODULES")[2].split())
    assert "click" in modules
    assert not modules & HEAVY


@pytest.mark.parametrize(
    ("arguments", "environment", "looked_for"),
    [
        (["status"], {}, "raft-node-0.sock"),
        (["status"], {"RAFTCTL_NODE": "of-env"}, "raft-of-env.sock"),
        (["--node", "a", "status"], {"RAFTCTL_NODE": "of-env"}, "raft-a.sock"),
        (["--node", "a", "status", "--node", "b"], {}, "raft-b.sock"),
        (["status"], {"RAFTCTL_NODE": "of-env", "RAFTCTL_SOCKET": "/no/env"}, "/no/env"),
        (["--node", "a", "status"], {"RAFTCTL_SOCKET": "/no/env"}, "raft-a.sock"),
        (["status", "--node", "a"], {"RAFTCTL_SOCKET": "/no/env"}, "raft-a.sock"),
        (["--node", "a", "--socket", "/no/flag", "status"], {}, "/no/flag"),
        (["--node", "a", "status"], {"RAFTCTL_ENDPOINT": "192.0.2.1:1"}, "raft-a.sock"),
        (["--socket", "/no/flag", "status"], {"RAFTCTL_ENDPOINT": "192.0.2.1:1"}, "/no/flag"),
    ],
)
def test_what_is_nearer_to_the_command_wins(
    arguments: list[str], environment: dict[str, str], looked_for: str
) -> None:
    clean: dict[str, str | None] = dict.fromkeys(
        ("RAFTCTL_NODE", "RAFTCTL_SOCKET", "RAFTCTL_ENDPOINT")
    )
    done = CliRunner().invoke(cli, arguments, env={**clean, **environment})
    assert done.exit_code == 5
    assert looked_for in done.stderr


@pytest.mark.parametrize("environment", [{}, {"RAFTCTL_NODE": "a"}, {"RAFTCTL_SOCKET": "/no/env"}])
def test_an_endpoint_takes_certificates_wherever_it_was_given(environment: dict[str, str]) -> None:
    for arguments, more in (
        (["--endpoint", "192.0.2.1:1", "status"], {}),
        (["status", "--endpoint", "192.0.2.1:1"], {}),
        (["status"], {"RAFTCTL_ENDPOINT": "192.0.2.1:1"}),
    ):
        done = CliRunner().invoke(cli, arguments, env={**environment, **more})
        assert done.exit_code == 2
        assert "--endpoint takes --cacert and --cert and --key, too" in done.stderr
