"""`raftctl export`: keys that stand in maps of every node's kernel."""

from __future__ import annotations

import click

from raft_agent.api import protocol
from raftctl.context import current
from raftctl.framework import RaftGroup, Utf8
from raftctl.messages import write_data
from raftctl.output import printable, printable_bytes, table, value_fields
from raftctl.quantities import Whole
from raftctl.streams import Follower

_HEAD = ("MAP", "PREFIX", "KIND", "KEY", "VALUE", "ENTRIES", "GROUP", "PIN")
_ADD = (
    "raftctl --node node-02 export add deny_v4 --prefix fw/deny/ --kind lpm_trie "
    "--key ipv4_prefix --value u32 --max-entries 10000"
)


@click.group(
    cls=RaftGroup,
    examples=f"""
    {_ADD}
    raftctl --node node-01 export list
    raftctl --node node-01 export dump deny_v4
    """,
)
def export() -> None:
    """Have keys stand in eBPF maps of every node's kernel.

    The keys below a prefix become entries of a pinned map, in the order of the log, for any program
    that reads it. What does not fit the map's types is refused when it is written.
    """


@export.command(name="add", action="export", examples=_ADD)
@click.argument("map_name", metavar="MAP", type=Utf8())
@click.option("--prefix", type=Utf8(), required=True, help="The keys below it, as in fw/deny/.")
@click.option("--kind", type=click.Choice(protocol.EXPORT_KINDS), default="hash", show_default=True)
@click.option(
    "--key",
    "key_type",
    type=Utf8(),
    required=True,
    metavar="TYPE",
    help=f"What is behind the prefix: {', '.join(protocol.EXPORT_KEY_TYPES)}.",
)
@click.option(
    "--value",
    "value_type",
    type=Utf8(),
    required=True,
    metavar="TYPE",
    help=f"What the keys hold: {', '.join(protocol.EXPORT_VALUE_TYPES)}.",
)
@click.option(
    "--max-entries",
    type=Whole(low=1, high=protocol.MAX_EXPORT_ENTRIES),
    default=10_000,
    show_default=True,
    metavar="N",
    help="How many keys there may be at most.",
)
@click.option("--group", type=Utf8(), default="", help="May read the pin, on every node.")
@click.option("--with-revision", is_flag=True, help="After each value its revision, a u64.")
def export_add(
    *,
    map_name: str,
    prefix: str,
    kind: str,
    key_type: str,
    value_type: str,
    max_entries: int,
    group: str,
    with_revision: bool,
) -> None:
    """Have the keys below a prefix stand in the map MAP.

    Keys that are there and do not fit are listed, and nothing is changed. To change an export,
    remove it first: another layout gets another version in the pin's name.
    """
    context = current()
    request = protocol.ExportAdd(
        id=1,
        prefix=prefix,
        map=map_name,
        kind=kind,
        key=key_type,
        value=value_type,
        max_entries=max_entries,
        group=group,
        with_revision=with_revision,
        forward=context.forward,
    )
    result = context.write(request, protocol.WriteResult)
    out = context.out
    text = f"{out.mark(True)} Keys below {printable(prefix)} stand in the map {printable(map_name)}"
    out.result(text, write_data(result))


@export.command(
    name="remove",
    action="remove",
    examples="raftctl --node node-02 export remove deny_v4",
)
@click.argument("map_name", metavar="MAP", type=Utf8())
def export_remove(map_name: str) -> None:
    """No longer export MAP: its pin goes on every node, its keys stay."""
    context = current()
    request = protocol.ExportRemove(id=1, map=map_name, forward=context.forward)
    result = context.write(request, protocol.WriteResult)
    out = context.out
    text = f"{out.mark(True)} The map {printable(map_name)} is exported no longer"
    out.result(text, write_data(result))


def list_text(result: protocol.ExportListResult) -> str:
    state = result.state
    if state not in ("off", "filling"):
        state += f", up to index {result.applied_index}"
        fresh = f"fresh for {result.fresh_ms} ms" if result.fresh_ms else "not fresh"
        state += f", {fresh}"
    lines = [f"Maps here:    {state}"]
    if result.reason:
        lines.append(f"              {printable(result.reason)}")
    rows = [_HEAD]
    for item in result.exports:
        value = f"{item.value}+revision" if item.with_revision else item.value
        rows.append(
            (
                printable(item.map),
                printable(item.prefix),
                item.kind,
                item.key,
                value,
                f"{item.entries}/{item.max_entries}",
                printable(item.group) or "-",
                printable(item.path) or "-",
            )
        )
    return "\n".join([*lines, "", table(rows)]) if result.exports else "\n".join(lines)


@export.command(
    name="list",
    action="list the exported maps",
    examples="""
    raftctl --node node-01 export list
    raftctl --node node-01 -o json export list
    """,
)
def export_list() -> None:
    """List what is exported, and how this node's kernel has it."""
    context = current()
    result = context.ask(protocol.ExportList(id=1), protocol.ExportListResult)
    context.out.result(list_text(result), result)


def _entry_data(item: protocol.ExportEntry | protocol.ExportEvent) -> dict[str, object]:
    return {"key": item.key, **value_fields(item.value), "revision": item.revision}


@export.command(
    name="dump",
    action="read the map",
    examples="""
    raftctl --node node-01 export dump deny_v4
    raftctl --node node-01 -o json export dump deny_v4 --limit 100
    """,
)
@click.argument("map_name", metavar="MAP", type=Utf8())
@click.option("--limit", type=Whole(), default=10_000, show_default=True, metavar="N")
def export_dump(map_name: str, limit: int) -> None:
    """Show what this node's kernel has in MAP: a line is KEY, a tab and VALUE."""
    context = current()
    request = protocol.ExportDump(id=1, map=map_name, limit=limit)
    result = context.ask(request, protocol.ExportDumpResult)
    entries = sorted(result.entries, key=lambda item: item.key.encode())
    out = context.out
    if not out.is_text:
        data = {
            "map": result.map,
            "applied_index": result.applied_index,
            "entries": [_entry_data(item) for item in entries],
            "more": result.more,
        }
        out.result("", data)
        return
    for item in entries:
        out.result(f"{printable(item.key)}\t{printable_bytes(item.value)}", None)
    if result.more:
        out.note(f"There are more: --limit {2 * limit}")


@export.command(
    name="watch",
    action="watch the map",
    examples="raftctl --node node-01 export watch deny_v4",
)
@click.argument("map_name", metavar="MAP", type=Utf8())
def export_watch(map_name: str) -> None:
    """Show what is written to this node's map, as it is, until Ctrl+C."""
    context = current()
    out = context.out
    is_new = True
    with Follower(context, lambda: protocol.ExportWatch(1, map_name), 500) as follower:
        for item in follower:
            if isinstance(item, protocol.StreamStarted):
                if is_new:
                    out.note(f"Watching the map {printable(map_name)} (Ctrl+C to stop)...")
                is_new = False
            elif isinstance(item, protocol.ExportEvent):
                line = f"{item.type}\t{printable(item.key)}"
                if item.type == "put":
                    line += f"\t{printable_bytes(item.value)}"
                out.item(line, {"type": item.type, **_entry_data(item), "index": item.index})
