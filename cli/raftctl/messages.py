"""`raftctl send`, `messages` and `watch`: the replicated message log."""

from __future__ import annotations

import click

from raft_agent.api import protocol
from raftctl.context import Context, current
from raftctl.framework import RaftCommand, Utf8
from raftctl.output import local_time_of_day, printable
from raftctl.quantities import MAX_INTERVAL_MS, Whole
from raftctl.streams import Follower

_RULE = "=" * 50


def write_data(result: protocol.WriteResult | protocol.TxnResult) -> dict[str, object]:
    return {"index": result.index, "term": result.term, "revision": result.revision}


def message_line(item: protocol.MessageItem) -> str:
    return f"[{local_time_of_day(item.time)}] {printable(item.node)}: {printable(item.text)}"


def messages_text(result: protocol.MessagesResult) -> str:
    head = f"Messages (last applied index: {result.last_applied})"
    return "\n".join([head, _RULE, *map(message_line, result.messages)])


@click.command(
    cls=RaftCommand,
    action="send",
    examples="""
    raftctl --node node-02 send "Hello from the RAFT cluster!"
    raftctl --node node-01 --forward send "Passed on to the leader"
    """,
)
@click.argument("text", type=Utf8())
def send(text: str) -> None:
    """Append TEXT to the replicated message log.

    Returns when a majority has it on disk.
    """
    context = current()
    request = protocol.Send(id=1, text=text, forward=context.forward)
    result = context.write(request, protocol.WriteResult)
    out = context.out
    out.result(
        f'{out.mark(True)} Message sent: "{printable(text)}"\n'
        f"  Replicated at log index {result.index}",
        write_data(result),
    )


@click.command(
    cls=RaftCommand,
    action="read messages",
    examples="""
    raftctl --node node-01 messages --limit 5
    raftctl --node node-01 -o json messages | jq -r .text
    """,
)
@click.option("--limit", type=Whole(), default=10, show_default=True, help="How many at most.")
def messages(limit: int) -> None:
    """Show the newest messages, newest first, as this node has applied them."""
    context = current()
    result = context.ask(protocol.Messages(id=1, limit=limit), protocol.MessagesResult)
    out = context.out
    if out.is_text:
        out.result(messages_text(result), None)
        return
    for item in result.messages:
        out.item("", item)


def _node_label(context: Context) -> str:
    """The node's name; asked for when only a socket was given."""
    if context.socket is None and not context.endpoint:
        return context.node
    return context.ask(protocol.Status(id=1), protocol.StatusResult).node_id


@click.command(
    cls=RaftCommand,
    action="watch",
    examples="""
    raftctl --node node-01 watch
    raftctl --node node-01 -o json watch | jq -r .text
    """,
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
def watch(interval_ms: int) -> None:
    """Show messages as they arrive, until Ctrl+C.

    The agent pushes them. When it restarts, watch goes on where it was: nothing is lost or
    repeated.
    """
    context = current()
    out = context.out
    label = _node_label(context)
    last_index = -1  # none of the past; later the last index that needs no repeating

    def request() -> protocol.Request:
        return protocol.WatchMessages(id=1, after_index=last_index)

    follower = Follower(context, request, interval_ms)
    with follower:
        for item in follower:
            if isinstance(item, protocol.StreamStarted):
                if last_index < 0:
                    last_index = item.index
                    out.prose(f"Watching for messages on {label} (Ctrl+C to stop)...\n{_RULE}")
                elif item.index > last_index:
                    # More were sent meanwhile than the cluster keeps.
                    out.note(f"Messages at log indexes {last_index + 1} to {item.index} are gone")
            elif isinstance(item, protocol.MessageItem) and item.index > last_index:
                last_index = item.index
                out.item(message_line(item), item)
