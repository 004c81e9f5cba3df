"""`raftctl propose`: the key-value store."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from raft_agent.api import protocol
from raftctl.context import Context, current
from raftctl.errors import CommandError
from raftctl.framework import Key, RaftGroup, Utf8
from raftctl.messages import write_data
from raftctl.output import printable, tabbed
from raftctl.propose_data import event_data, event_line, key_data
from raftctl.quantities import MAX_INTERVAL_MS, MAX_REVISION, Whole
from raftctl.streams import Follower
from raftctl.txn import txn

_CONSISTENCIES = ("linearizable", "lease", "stale")
# One answer must fit a frame whatever the values' sizes; the agent may also stop earlier.
_PAGE_KEYS = 1000
# How often a watch hears from where on it can go on, so that it can do so after a long silence.
_BOOKMARK_MS = 5_000
_AT = "a value that itself starts with @ is written with two: @@…"


@click.group(
    cls=RaftGroup,
    examples="""
    raftctl --node node-02 propose put mykey "my value"
    raftctl --node node-01 propose get mykey
    """,
)
def propose() -> None:
    """Read, write and watch keys."""


def _consistency_option(command: Any) -> Any:
    return click.option(
        "--consistency",
        type=click.Choice(_CONSISTENCIES),
        default="linearizable",
        show_default=True,
        help="stale reads this node as it is; lease trusts the leader's clock.",
    )(command)


def read_value(argument: str, stdin: Any = None) -> bytes:
    """VALUE as given, or the content of the file in @FILE, or standard input for "-"; "@@…" is a
    value that starts with @.

    Raises CommandError when the file can't be read or is larger than a value may be.
    """
    source = "the value"
    if argument == "-":
        source = "standard input"
        value = (stdin or sys.stdin.buffer).read(protocol.MAX_VALUE_BYTES + 1)
    elif argument.startswith("@@"):
        value = os.fsencode(argument[1:])
    elif argument.startswith("@"):
        source = argument[1:]
        if not source:
            raise click.UsageError(f"@ needs the name of a file; {_AT}")
        try:
            with Path(source).open("rb") as file:
                value = file.read(protocol.MAX_VALUE_BYTES + 1)
        except OSError as failure:
            reason = f"Can't read {source}: {failure.strerror}"
            if isinstance(failure, IsADirectoryError):
                reason = f"{source} is a directory, not a file with a value"
            raise CommandError(reason, hint=_AT[:1].upper() + _AT[1:]) from failure
    else:
        value = os.fsencode(argument)
    if len(value) > protocol.MAX_VALUE_BYTES:
        raise CommandError(
            f"{source} is larger than {protocol.MAX_VALUE_BYTES} bytes",
            "too_large",
            "Put it under several keys, or keep it elsewhere and put where that is",
        )
    return bytes(value)


def _condition(if_revision: int | None, if_absent: bool) -> int:
    """The protocol's if_revision: -1 for none, 0 for absent."""
    if if_absent:
        if if_revision is not None:
            raise click.UsageError("--if-revision and --if-absent exclude each other")
        return 0
    return -1 if if_revision is None else if_revision


@propose.command(
    action="put",
    examples="""
    raftctl --node node-02 propose put mykey "my value"
    raftctl --node node-02 propose put config @config.json
    date | raftctl --node node-02 propose put now -
    raftctl --node node-02 propose put mykey first --if-absent
    raftctl --node node-02 propose put service/web 10.0.0.7 --lease 7
    raftctl --node node-02 propose put -- number -5
    raftctl --node node-02 propose put name @@alice
    """,
)
@click.argument("key", type=Key())
@click.argument("value")
@click.option(
    "--if-revision",
    type=Whole(low=0, high=MAX_REVISION),
    metavar="N",
    help="Only if the key's revision is still N (0: if there is no such key).",
)
@click.option("--if-absent", is_flag=True, help="Only if there is no such key.")
@click.option(
    "--lease",
    type=Whole(high=MAX_REVISION),
    metavar="ID",
    help="The key ends with this lease; without it, with none.",
)
def put(key: str, value: str, if_revision: int | None, if_absent: bool, lease: int | None) -> None:
    """Store VALUE under KEY.

    @FILE takes the value from a file, - from standard input. A value that itself starts with @ is
    written @@…; behind -- come a key and a value that may start with -.
    """
    condition = _condition(if_revision, if_absent)
    context = current()
    request = protocol.Put(
        id=1,
        key=key,
        value=read_value(value),
        if_revision=condition,
        forward=context.forward,
        lease=lease or 0,
    )
    result = context.write(request, protocol.WriteResult)
    out = context.out
    out.result(
        f"{out.mark(True)} Stored: {printable(key)} (revision {result.revision})\n"
        f"  Replicated at log index {result.index}",
        write_data(result),
    )


@propose.command(
    action="delete",
    examples="""
    raftctl --node node-02 propose delete mykey
    raftctl --node node-02 propose delete mykey --if-revision 7
    """,
)
@click.argument("key", type=Key())
@click.option(
    "--if-revision",
    type=Whole(high=MAX_REVISION),
    metavar="N",
    help="Only if the key's revision is still N.",
)
def delete(key: str, if_revision: int | None) -> None:
    """Delete KEY. Exit status 4 when there is no such key."""
    context = current()
    request = protocol.Delete(
        id=1, key=key, if_revision=_condition(if_revision, False), forward=context.forward
    )
    result = context.write(request, protocol.WriteResult)
    if result.deleted == 0:
        raise CommandError(f'No such key: "{key}"', "key_not_found")
    out = context.out
    out.result(
        f"{out.mark(True)} Deleted: {printable(key)} (revision {result.revision})\n"
        f"  Replicated at log index {result.index}",
        {**write_data(result), "deleted": result.deleted},
    )


def _age(consistency: str, age_ms: int | None) -> dict[str, object]:
    """What JSON says of the age of a stale read."""
    return {"age_ms": age_ms} if consistency == "stale" else {}


def _tell_age(context: Context, consistency: str, age_ms: int | None) -> None:
    if consistency != "stale":
        return
    if age_ms is None:
        context.out.note("(it may be of any age: this node has not heard of a leader yet)")
    else:
        context.out.note(f"(as of {age_ms} ms ago)")


@propose.command(
    action="get",
    examples="""
    raftctl --node node-01 propose get mykey
    raftctl --node node-01 propose get mykey --consistency stale
    raftctl --node node-01 -o json propose get mykey
    """,
)
@click.argument("key", type=Key())
@_consistency_option
def get(key: str, consistency: str) -> None:
    """Print the value of KEY and a newline. Exit status 4 when there is no such key."""
    context = current()
    request = protocol.Get(id=1, key=key, consistency=protocol.Consistency(consistency))
    item = context.ask(request, protocol.KeyValue)
    if not context.out.is_text:
        context.out.result("", {**key_data(item), **_age(consistency, item.age_ms)})
        return
    # Bytes as they are: `get > file` gives back what `put @file` took, and a newline.
    context.out.raw(item.value + b"\n")
    _tell_age(context, consistency, item.age_ms)


@propose.command(
    name="list",
    action="list",
    examples="""
    raftctl --node node-01 propose list config/
    raftctl --node node-01 propose list "" --limit 100 --after config/a
    """,
)
@click.argument("prefix", type=Utf8())
@click.option("--limit", type=Whole(), metavar="N", help="At most N keys (else all).")
@click.option("--after", type=Utf8(), default="", metavar="KEY", help="Only keys after KEY.")
@_consistency_option
def list_(prefix: str, limit: int | None, after: str, consistency: str) -> None:
    """List the keys that start with PREFIX and their values, in byte order.

    In text form a line is KEY, a tab and VALUE, with control characters as \\n, \\t or \\xNN;
    use -o json for the exact bytes.
    """
    context = current()
    pages = _read_pages(context, prefix, limit, after, consistency)
    keys, more = pages.keys, pages.more
    out = context.out
    if out.is_text:
        for item in keys:
            out.result(tabbed(item.key, item.value), None)
        if more:
            out.note(f"There are more: --after {printable(keys[-1].key)}")
        _tell_age(context, consistency, pages.age_ms)
    else:
        data = {
            "keys": [key_data(item) for item in keys],
            "more": more,
            "revision": pages.revision,
            **_age(consistency, pages.age_ms),
        }
        out.result("", data)


def _read_pages(
    context: Context, prefix: str, limit: int | None, after: str, consistency: str
) -> protocol.ListResult:
    """All pages as one; the store's revision is that of the last, the age that of the oldest."""
    keys: list[protocol.KeyValue] = []
    ages: list[int | None] = []
    while True:
        wanted = _PAGE_KEYS if limit is None else min(limit - len(keys), _PAGE_KEYS)
        request = protocol.List(
            id=1,
            prefix=prefix,
            limit=wanted,
            after=after,
            consistency=protocol.Consistency(consistency),
        )
        page = context.ask(request, protocol.ListResult)
        keys += page.keys
        ages.append(page.age_ms)
        if not page.more or not page.keys or len(keys) == limit:
            known = [age for age in ages if age is not None]
            age_ms = max(known) if len(known) == len(ages) else None
            return protocol.ListResult(keys, page.more, page.revision, age_ms)
        after = page.keys[-1].key


@propose.command(
    name="watch",
    action="watch",
    examples="""
    raftctl --node node-01 propose watch mykey
    raftctl --node node-01 propose watch config/ --from-revision 7
    raftctl --node node-01 -o json propose watch config/
    """,
)
@click.argument("key", metavar="KEY|PREFIX/", type=Utf8())
@click.option(
    "--from-revision",
    type=Whole(high=MAX_REVISION),
    metavar="N",
    help="First the changes since the store's revision N, as long as they are kept.",
)
@click.option(
    "--interval",
    "interval_ms",
    type=Whole(high=MAX_INTERVAL_MS),
    default=500,
    show_default=True,
    metavar="MS",
    help="How often a lost connection is tried again.",
)
@click.option(
    "--bookmarks",
    is_flag=True,
    help="Say now and then up to which revision there is nothing else to show.",
)
def watch_keys(key: str, from_revision: int | None, interval_ms: int, bookmarks: bool) -> None:
    """Show changes of KEY, or of all keys below PREFIX/ ("" for all), until Ctrl+C.

    A line is "put", KEY and VALUE, or "delete" and KEY, with tabs between them; with --bookmarks
    also "bookmark" and a revision. What one transaction or the end of one lease has changed is
    shown at once; in JSON "more" says that the next line belongs to it. When the agent restarts,
    watch goes on where it was: nothing is lost or repeated. It ends when changes that would come
    next are not kept any more.
    """
    context = current()
    out = context.out
    prefix = not key or key.endswith("/")
    next_revision = from_revision or 0
    is_new = True
    together: list[protocol.KeyEvent] = []

    def request() -> protocol.Request:
        return protocol.WatchKeys(1, key, prefix, next_revision, _BOOKMARK_MS)

    with (follower := Follower(context, request, interval_ms)):
        for item in follower:
            if isinstance(item, protocol.StreamStarted):
                next_revision = next_revision or item.revision + 1
                together.clear()  # what came in parts comes again
                if is_new:
                    what = f"keys below {printable(key)!r}" if prefix else f"key {printable(key)!r}"
                    out.note(f"Watching {what} (Ctrl+C to stop)...")
                    is_new = False
            elif isinstance(item, protocol.KeyEvent):
                if item.type != "bookmark" or bookmarks:
                    together.append(item)
                if not item.more:
                    next_revision = item.revision + 1
                    for event in together:
                        out.item(event_line(event), event_data(event))
                    together.clear()


propose.add_command(txn)
