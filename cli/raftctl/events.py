"""`raftctl events`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from raftctl.framework import RaftCommand, current
from raftctl.output import local_time_of_day, printable

if TYPE_CHECKING:
    from raft_agent.api.protocol import EventItem


def event_line(item: EventItem) -> str:
    """ "[03:01:15] term 3  leader_elected  node-02 leads"."""
    return printable(f"[{local_time_of_day(item.time)}] term {item.term}  {item.kind}  {item.text}")


@click.command(
    cls=RaftCommand,
    action="read events",
    examples="""
    raftctl --node node-01 events --limit 20
    raftctl --node node-01 -o json events --follow
    """,
)
@click.option(
    "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="How many at most."
)
@click.option("-f", "--follow", is_flag=True, help="Go on with new events until Ctrl+C.")
def events(limit: int, follow: bool) -> None:
    """Show what happened at a node, oldest first: elections, membership, kernel."""
    from raft_agent.api import protocol  # noqa: PLC0415

    context = current()
    out = context.out
    if not follow:
        result = context.ask(protocol.Events(id=1, limit=limit), protocol.EventsResult)
        for item in result.events:
            out.item(event_line(item), item)
        return

    from raftctl.streams import Follower  # noqa: PLC0415

    # A restarted agent starts its list anew; one that lives on repeats it. RFC 3339 in UTC sorts.
    last_time = ""
    follower = Follower(context, lambda: protocol.Events(id=1, limit=limit, follow=True), 500)
    with follower:
        for part in follower:
            items: list[object] = [part]
            if isinstance(part, protocol.EventsResult):
                items = [*part.events]
            for event in items:
                if isinstance(event, protocol.EventItem) and event.time >= last_time:
                    out.item(event_line(item), item)
                    last_time = item.time
