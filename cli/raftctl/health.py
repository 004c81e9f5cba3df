"""`raftctl health`."""

from __future__ import annotations

import click
import msgspec

from raft_agent.api import protocol
from raftctl.context import Context, current
from raftctl.errors import EXIT_NO_LEADER
from raftctl.framework import RaftCommand
from raftctl.output import Output, agent_text, printable, table

_COLORS = {"healthy": "green", "lagging": "yellow", "unreachable": "red"}


def _number(value: int | None, unit: str = "") -> str:
    return "-" if value is None else f"{value}{unit}"


def _somebody_is_away(result: protocol.HealthResult) -> bool:
    return any(item.state == "unreachable" for item in result.members)


def no_quorum_text(result: protocol.HealthResult) -> str:
    """What writes wait for, by what the node that was asked sees of the others."""
    if _somebody_is_away(result):
        return "No quorum: writes wait until more members are back"
    return "No quorum: nobody leads, and writes wait until somebody does"


def health_text(
    result: protocol.HealthResult,
    out: Output,
    status: protocol.StatusResult | None = None,
    call: str = "raftctl",
) -> str:
    """One line per member, then one about the quorum. `status`: the node's own, which may say why
    it sees none; `call`: how people call raftctl to reach it."""
    rows = [("NAME", "ROLE", "STATE", "CONTACT", "MATCH", "LAG", "ADDRESS", "AGENT", "DETAIL")]
    for item in result.members:
        role = "leader" if item.name == result.leader else item.role
        rows.append(
            (
                printable(item.name),
                role,
                item.state,
                _number(item.last_contact_ms, " ms"),
                _number(item.match_index),
                _number(item.lag),
                printable(item.address),
                agent_text(item.agent, item.knows),
                printable(item.detail),
            )
        )
    head, *lines = table(rows).splitlines()
    colored = [
        line.replace(item.state, out.colored(item.state, _COLORS.get(item.state, "red")), 1)
        for line, item in zip(lines, result.members, strict=True)
    ]
    if result.quorum:
        leader = f"leader {result.leader}" if result.leader else "no leader"
        verdict = f"{out.mark(True)} Quorum: {printable(leader)}, term {result.term}"
    elif status is not None and status.removed:
        verdict = f"{out.mark(False)} {printable(status.node_id)} is no member: ask another node"
    else:
        verdict = f"{out.mark(False)} {no_quorum_text(result)}"
        if _somebody_is_away(result):
            verdict += f"\n  If they are lost for good: {call} recover --dry-run"
    if status is not None and status.note:
        verdict += f"\n  {printable(f'{status.node_id}: {status.note}')}"
    return "\n".join([head, *colored, verdict])


def _own_status(context: Context) -> protocol.StatusResult:
    return context.ask(protocol.Status(id=1), protocol.StatusResult)


def _show_why_alone(context: Context, result: protocol.HealthResult) -> None:
    """A node in no cluster has no members to show, but knows what it waits for."""
    status = _own_status(context)
    text = f"{status.node_id} belongs to no cluster yet"
    if status.note:
        text += f": {status.note}"
    out = context.out
    out.result(
        f"{out.mark(False)} {printable(text)}",
        {**msgspec.to_builtins(result), "note": status.note},
    )


@click.command(
    cls=RaftCommand,
    action="read the health",
    examples="""
    raftctl --node node-01 health
    raftctl --node node-01 -o json health
    """,
)
def health() -> None:
    """Show one line per member, the dead ones too. Exit status 6 when there is no quorum.

    MATCH is the log index up to which a member has what the leader has, LAG how many entries it
    lacks; AGENT the raft-agent that it runs and, in brackets, the cluster versions that it knows.
    """
    context = current()
    result = context.ask(protocol.Health(id=1), protocol.HealthResult)
    out = context.out
    if result.members:
        status = None if result.quorum else _own_status(context)
        out.result(health_text(result, out, status, context.call), result)
    else:
        _show_why_alone(context, result)
    if not result.quorum:
        click.get_current_context().exit(EXIT_NO_LEADER)
