"""`raftctl propose txn`: several reads and writes in one moment."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from raft_agent.api import protocol
from raftctl.context import current
from raftctl.errors import CommandError
from raftctl.framework import RaftCommand
from raftctl.messages import write_data
from raftctl.output import Output, tabbed
from raftctl.propose_data import key_data
from raftctl.txn_file import TransactionFileError, parse

_MAX_FILE_BYTES = 32 << 20


@click.command(
    cls=RaftCommand,
    action="do the transaction",
    examples="""
    raftctl --node node-02 propose txn transfer.txt
    printf 'compare\\n absent job\\nthen\\n put job mine\\n' | raftctl propose txn -
    """,
)
@click.argument("file")
def txn(file: str) -> None:
    """Do what FILE says (- for standard input), all of it in one moment or nothing.

    \b
    FILE is text, one item a line, words quoted as in a shell:
      compare
        value KEY = VALUE       (also: != < >)
        revision KEY = N        (also: create_revision, version, lease)
        absent KEY              (also: exists KEY)
      then
        put KEY VALUE [--lease ID]
        delete KEY
        delete-prefix PREFIX
        get KEY
        list PREFIX [--limit N]
      else
        get KEY
    or JSON: {"compare": [{"key": K, "revision": N, "op": "="}],
      "then": [{"put": K, "value": V}], "else": [{"get": K}]}.

    Exit status 0 when it was done, also when that was what stands under else; 1 when the compares
    do not hold and there is no else: nothing was changed.
    """
    data = _read(file)
    try:
        wanted = parse(data)
    except TransactionFileError as error:
        what = "standard input" if file == "-" else file
        raise CommandError(
            f"{what} is no transaction: {error}", "bad_request", "raftctl propose txn --help"
        ) from error
    context = current()
    request = protocol.Txn(
        id=1,
        compares=wanted.compares,
        then=wanted.then,
        otherwise=wanted.otherwise,
        forward=context.forward,
    )
    result = context.write(request, protocol.TxnResult)
    if not result.succeeded and not wanted.otherwise:
        raise CommandError(
            "Not all compares hold, and there is no else: nothing was changed",
            "conflict",
            "Read the keys and decide anew",
        )
    _show(context.out, result, wanted.then if result.succeeded else wanted.otherwise)


def _read(file: str) -> bytes:
    try:
        if file == "-":
            data = sys.stdin.buffer.read(_MAX_FILE_BYTES + 1)
        else:
            with Path(file).open("rb") as source:
                data = source.read(_MAX_FILE_BYTES + 1)
    except OSError as failure:
        raise CommandError(
            f"Can't read {file}: {failure.strerror}",
            hint="Give a file that is there and that you may read, or - for standard input",
        ) from failure
    if len(data) > _MAX_FILE_BYTES:
        raise CommandError(
            f"{file} is larger than {_MAX_FILE_BYTES} bytes",
            "too_large",
            "Make several transactions of it",
        )
    return data


def _show(out: Output, result: protocol.TxnResult, operations: list[protocol.Operation]) -> None:
    if not out.is_text:
        results = [
            {
                "deleted": done.deleted,
                "more": done.more,
                "keys": [key_data(item) for item in done.keys],
            }
            for done in result.results
        ]
        out.result("", {**write_data(result), "succeeded": result.succeeded, "results": results})
        return
    branch = "all compares hold" if result.succeeded else "else: not all compares hold"
    out.result(
        f"{out.mark(True)} Done ({branch}; revision {result.revision})\n"
        f"  Replicated at log index {result.index}",
        None,
    )
    for operation, done in zip(operations, result.results, strict=True):
        for line in _lines(operation, done):
            out.result(line, None)


def _lines(operation: protocol.Operation, done: protocol.OperationResult) -> list[str]:
    if isinstance(operation, protocol.PutKey):
        return [tabbed("put", operation.key)]
    if isinstance(operation, protocol.DeleteKey):
        return [tabbed("delete", operation.key, str(done.deleted))]
    if isinstance(operation, protocol.DeletePrefix):
        return [tabbed("delete-prefix", operation.prefix, str(done.deleted))]
    lines = [tabbed("get", item.key, item.value) for item in done.keys]
    return [*lines, "more\t"] if done.more else lines
