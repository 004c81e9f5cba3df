"""`raftctl events`."""

from __future__ import annotations

from collections import deque

import click

from raft_agent.api import protocol
from raftctl.context import current
from raftctl.framework import RaftCommand
from raftctl.output import local_time, printable
from raftctl.quantities import Whole
from raftctl.streams import Follower

_REMEMBERED = 1000


def event_line(item: protocol.EventItem) -> str:
    """ "[03:01:15] term 3  leader_elected  node-02 leads"; of another day with its date."""
    return printable(f"[{local_time(item.time)}] term {item.term}  {item.kind}  {item.text}")


@click.command(
    cls=RaftCommand,
    action="read events",
    examples="""
    raftctl --node node-01 events --limit 20
    raftctl --node node-01 -o json events --follow
    """,
)
@click.option("--limit", type=Whole(), default=100, show_default=True, help="How many at most.")
@click.option("-f", "--follow", is_flag=True, help="Go on with new events until Ctrl+C.")
def events(limit: int, follow: bool) -> None:
    """Show what happened at a node, oldest first: elections, membership, kernel."""
    context = current()
    out = context.out
    if not follow:
        result = context.ask(protocol.Events(id=1, limit=limit), protocol.EventsResult)
        for item in result.events:
            out.item(event_line(item), item)
        return

    # After a lost connection the agent, unless it restarted, repeats what was shown.
    shown: deque[tuple[str, str, int, str]] = deque(maxlen=limit + _REMEMBERED)
    follower = Follower(context, lambda: protocol.Events(id=1, limit=limit, follow=True), 500)
    with follower:
        for pushed in follower:
            if isinstance(pushed, protocol.EventItem):
                mark = (pushed.time, pushed.kind, pushed.term, pushed.text)
                if mark not in shown:
                    shown.append(mark)
                    out.item(event_line(pushed), pushed)
