"""`raftctl settings`: what is the same on every node because it is replicated."""

from __future__ import annotations

import click

from raft_agent.api import protocol
from raftctl.context import current
from raftctl.framework import RaftGroup, Utf8
from raftctl.messages import write_data
from raftctl.output import printable, table
from raftctl.quantities import Whole


@click.group(
    cls=RaftGroup,
    examples="""
    raftctl --node node-01 settings list
    raftctl --node node-02 settings set messages_keep 50000
    """,
)
def settings() -> None:
    """Show and change replicated settings."""


def settings_text(result: protocol.SettingsResult) -> str:
    rows = [("NAME", "VALUE", "DEFAULT", "MEANING")]
    for item in result.settings:
        rows.append((item.name, str(item.value), str(item.default), printable(item.meaning)))
    return table(rows)


@settings.command(
    name="list",
    action="list the settings",
    examples="""
    raftctl --node node-01 settings list
    raftctl --node node-01 -o json settings list
    """,
)
def settings_list() -> None:
    """List the settings as this node has applied them."""
    context = current()
    result = context.ask(protocol.SettingsList(id=1), protocol.SettingsResult)
    context.out.result(settings_text(result), result)


@settings.command(
    name="set",
    action="set",
    examples="raftctl --node node-02 settings set messages_keep 50000",
)
@click.argument("name", type=Utf8())
@click.argument("value", type=Whole(low=0))
def settings_set(name: str, value: int) -> None:
    """Set NAME to VALUE on every node."""
    context = current()
    request = protocol.SettingSet(id=1, name=name, value=value, forward=context.forward)
    result = context.write(request, protocol.WriteResult)
    out = context.out
    out.result(f"{out.mark(True)} {printable(name)} is {value} on every node", write_data(result))
