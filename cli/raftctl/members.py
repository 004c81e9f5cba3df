"""`raftctl member` and `raftctl leader`."""

from __future__ import annotations

import click

from raft_agent.api import protocol
from raftctl.context import current
from raftctl.errors import CommandError
from raftctl.framework import RaftGroup, Utf8
from raftctl.membership import (
    Address,
    change,
    if_configuration_option,
    no_wait_option,
    show_change,
    wait_until_voter,
)
from raftctl.output import agent_text, printable, table


@click.group(
    cls=RaftGroup,
    examples="""
    raftctl --node node-01 member list
    raftctl --node node-01 member promote node-04
    """,
)
def member() -> None:
    """List, promote and move the members."""


def members_text(result: protocol.MemberListResult) -> str:
    rows = [("NAME", "ID", "ADDRESS", "ROLE", "AGENT")]
    for item in result.members:
        role = item.role
        if item.name == result.leader:
            role += " (leader)"
        elif item.state:
            role += f" ({item.state})"
        agent = agent_text(item.agent, item.knows)
        rows.append((printable(item.name), item.id, printable(item.address), role, agent))
    return table(rows)


@member.command(
    name="list",
    action="list the members",
    examples="""
    raftctl --node node-01 member list
    raftctl --node node-01 -o json member list
    """,
)
def member_list() -> None:
    """List the members: name, id, address and role, as this node knows them.

    AGENT is the raft-agent that each one runs and, in brackets, the cluster versions that it knows.
    """
    context = current()
    result = context.ask(protocol.MemberList(id=1), protocol.MemberListResult)
    if context.out.is_text and not result.members:
        context.out.note("This node belongs to no cluster yet, so it knows of no members")
        return
    context.out.result(members_text(result), result)


@member.command(
    action="promote the member",
    examples="""
    raftctl --node node-01 member promote node-04
    raftctl --node node-01 member promote node-04 --no-wait
    """,
)
@click.argument("name", type=Utf8())
@if_configuration_option
@no_wait_option
def promote(name: str, if_configuration: int, no_wait: bool) -> None:
    """Make the learner NAME a voter, as soon as it has caught up."""
    context = current()
    request = protocol.MemberPromote(id=1, name=name, if_configuration=if_configuration)
    result = change(context, request)
    if not no_wait:
        result = wait_until_voter(context, name, result)
    show_change(context, result)


@member.command(
    action="update the member",
    examples="raftctl --node node-01 member update node-02 10.0.0.7:5555",
)
@click.argument("name", type=Utf8())
@click.argument("address", metavar="ADDR", type=Address())
@if_configuration_option
def update(name: str, address: str, if_configuration: int) -> None:
    """Have the others dial NAME at ADDR from now on. Who it is does not change.

    For a member that can't reach the others: one that can announces its server.advertise_addr
    itself.
    """
    context = current()
    request = protocol.MemberUpdate(
        id=1, name=name, address=address, if_configuration=if_configuration
    )
    show_change(context, change(context, request))


@click.group(cls=RaftGroup, examples="raftctl --node node-02 leader transfer node-03")
def leader() -> None:
    """Hand leadership over."""


@leader.command(
    action="transfer leadership",
    examples="""
    raftctl --node node-02 leader transfer
    raftctl --node node-01 --forward leader transfer node-03
    """,
)
@click.argument("name", required=False, default="", type=Utf8())
def transfer(name: str) -> None:
    """Hand leadership over to NAME, or to the voter whose log is furthest."""
    context = current()
    request = protocol.LeaderTransfer(id=1, target=name, forward=context.forward)
    before = context.ask(protocol.Status(id=1), protocol.StatusResult).leader if name else None
    try:
        result = context.write(request, protocol.TransferResult)
    except CommandError as refused:
        if not name and refused.code == protocol.ErrorCode.NO_SUCH_MEMBER:
            # The agent's words speak of a name, as it was asked for none.
            refused.error = "There is no other voter to hand over to"
        raise
    out = context.out
    text = f"Leadership handed over to {result.leader}"
    if name == before == result.leader:
        text = f"{name} leads already"
    out.result(f"{out.mark(True)} {printable(text)}", result)
