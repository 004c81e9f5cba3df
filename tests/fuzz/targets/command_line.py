"""The arguments of raftctl, and the files of transactions."""

from __future__ import annotations

import contextlib
import io

import click

from raftctl.errors import CommandError
from raftctl.main import cli
from raftctl.txn_file import TransactionFileError, parse
from tests.fuzz.target import Target


def parse_arguments(data: bytes) -> None:
    """Arguments are understood, or refused with a sentence; nothing is carried out here."""
    arguments = [word.decode("utf-8", "surrogateescape") for word in data.split(b"\0")]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            _resolve(cli, None, "raftctl", arguments)
        except click.exceptions.Exit as ended:
            assert ended.exit_code in (0, 2)
        except click.ClickException as refused:
            assert refused.format_message()
        except CommandError as refused:
            assert str(refused)


def _resolve(
    command: click.Command, parent: click.Context | None, name: str, arguments: list[str]
) -> None:
    with command.make_context(name, list(arguments), parent=parent) as context:
        if not isinstance(command, click.Group):
            return
        rest = [*context._protected_args, *context.args]
        if not rest:
            return
        below_name, below, behind = command.resolve_command(context, rest)
        if below is not None:
            _resolve(below, context, below_name or "", behind)


def parse_transaction(data: bytes) -> None:
    """A file is a transaction, or is refused with the place."""
    try:
        found = parse(data)
    except TransactionFileError as error:
        assert str(error)
        return
    assert isinstance(found.compares, list)


def _calls() -> list[bytes]:
    return [
        call.replace(b" ", b"\0")
        for call in (
            b"--node node-01 status",
            b"-o json propose put key value --if-revision 3 --lease 5",
            b"propose get key --consistency stale --timeout 2",
            b"propose list a/ --limit 5 --after a/b",
            b"propose watch a/ --from-revision 7",
            b"send -- -text",
            b"messages --limit 5 --no-color",
            b"watch --interval 50",
            b"join node-04 127.0.0.1:5555 --learner --no-wait",
            b"leave node-04 --force",
            b"member update node-04 127.0.0.1:1",
            b"leader transfer node-02",
            b"lease grant 5 --forward",
            b"lock name --ttl 5 -- true",
            b"bench put --clients 5 --pipeline 2 --duration 3",
            b"fault drop --peer node-02 --percent 3 --seconds 4",
            b"dev up --nodes 3 --dir x",
            b"events --follow",
            b"settings set messages_keep 5",
            b"--help",
            b"propose --help",
            b"completion bash",
        )
    ]


def _transactions() -> list[bytes]:
    text = (
        "compare\n value a = 1\n absent b\n exists c\n version d > 5\nthen\n"
        " put a 'x y' --lease 7\n delete b # gone\nelse:\n get a\n list p/ --limit 3\n"
        " delete-prefix q/\n"
    )
    as_json = (
        '{"compare": [{"key": "a", "value": "1", "op": "<"}, {"key": "b", "exists": false},'
        ' {"key": "c", "revision": 4}], "then": [{"put": "a", "value_base64": "AAE=", "lease": 7},'
        ' {"delete": "b"}, {"delete_prefix": "c"}], "else": [{"get": "a"}, {"list": "p"}]}'
    )
    return [text.encode(), as_json.encode()]


TARGETS = (
    Target("arguments", parse_arguments, _calls, max_bytes=512),
    Target("transaction_files", parse_transaction, _transactions, max_bytes=4096),
)
