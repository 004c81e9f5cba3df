"""`raftctl join` and `raftctl leave`, and what changes of the members have in common."""

from __future__ import annotations

import time
from typing import Any

import click
import msgspec

from raft_agent.api import protocol
from raftctl.context import Context, current
from raftctl.errors import FAILED, CommandError
from raftctl.framework import RaftCommand, Utf8
from raftctl.output import printable
from raftctl.quantities import MAX_REVISION, Whole

_LOOK_EVERY_S = 0.1
# Of --timeout: how long the agent may look for a leader before it says that there is none.
_AGENTS_SHARE = 0.6
_TELL_EVERY_S = 1.0


class Address(Utf8):
    """Where a member can be dialled, as "host:port"."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from raft_agent.config.values import dial_address  # noqa: PLC0415

        text = super().convert(value, param, ctx)
        try:
            return dial_address(text)
        except ValueError as error:
            self.fail(f"an address {error}", param, ctx)


def no_wait_option(command: Any) -> Any:
    return click.option(
        "--no-wait", is_flag=True, help="Don't wait until it has caught up and is a voter."
    )(command)


def if_configuration_option(command: Any) -> Any:
    return click.option(
        "--if-configuration",
        type=Whole(low=0, high=MAX_REVISION),
        default=0,
        metavar="N",
        help="Only if the membership has not changed since log index N (0: no check). N is "
        "`configuration_index` in `raftctl -o json member list`.",
    )(command)


def change(
    context: Context,
    request: protocol.Join | protocol.Leave | protocol.MemberPromote | protocol.MemberUpdate,
) -> protocol.MembershipResult:
    """Have the members changed; any node passes it on to the leader, as long as there is time left
    to hear how that went."""
    patience_ms = int(context.timeout_s * 1000 * _AGENTS_SHARE)
    request = msgspec.structs.replace(request, patience_ms=max(patience_ms, 1))
    return context.write(request, protocol.MembershipResult)


def show_change(context: Context, result: protocol.MembershipResult) -> None:
    out = context.out
    text = f"{out.mark(True)} {printable(result.note)}"
    if out.is_text:
        for warning in result.warnings:
            text += f"\n  {out.colored('Warning:', 'yellow')} {printable(warning)}"
    else:
        for warning in result.warnings:
            out.note(f"Warning: {printable(warning)}")
    out.result(text, result)


def wait_until_voter(
    context: Context, name: str, result: protocol.MembershipResult, *, replaced: str = ""
) -> protocol.MembershipResult:
    """Show how NAME catches up, until it is a voter, and `replaced` is none any more; the result to
    show then: the agent's own when there was nothing to wait for.

    Raises CommandError when it is no member any more, or when nobody tells how it goes on.
    """
    try:
        return _wait_until_voter(context, name, result, replaced)
    except (CommandError, KeyboardInterrupt) as stop:
        if isinstance(stop, CommandError) and stop.code == FAILED:
            raise
        why = stop.error if isinstance(stop, CommandError) else "Interrupted"
        raise CommandError(
            f"{why}; {name} is a member and becomes a voter by itself once it has caught up",
            "unknown_outcome",
            "See how far it is: raftctl member list",
        ) from stop


def _wait_until_voter(
    context: Context, name: str, first: protocol.MembershipResult, replaced: str
) -> protocol.MembershipResult:
    told_at = time.monotonic()
    told = ""
    result = first
    while True:
        found = next((item for item in result.members if item.name == name), None)
        if found is None:
            raise CommandError(
                f"{name} is no member any more: somebody has removed it",
                hint="See who is: raftctl member list",
            )
        if found.role == "voter" and not result.pending:
            if result is first:
                return first
            place = f", in place of {replaced}" if replaced else ""
            return msgspec.structs.replace(result, note=f"{name} is a voter now{place}")
        if found.role == "learner" and not found.state:
            return result
        if time.monotonic() - told_at >= _TELL_EVERY_S:
            told_at = time.monotonic()
            told = _tell_progress(context, name, told)
        time.sleep(_LOOK_EVERY_S)
        listed = context.ask(protocol.MemberList(id=1, forward=True), protocol.MemberListResult)
        if listed.configuration_index < result.index:
            continue  # without a leader a node tells what it knows itself, which may be older
        voters = sum(item.role == "voter" for item in listed.members)
        result = msgspec.structs.replace(
            result,
            members=listed.members,
            pending=listed.pending,
            index=listed.configuration_index,
            warnings=protocol.voter_warnings(voters),
        )


def _tell_progress(context: Context, name: str, told: str) -> str:
    """Says how far NAME is, unless that is what was `told` last; what was said."""
    health = context.ask(protocol.Health(id=1), protocol.HealthResult)
    found = next((item for item in health.members if item.name == name), None)
    line = _progress_line(found) if found is not None else ""
    if line not in ("", told):
        context.out.note(line)
    return line


def _progress_line(member: protocol.HealthMember) -> str:
    name = printable(member.name)
    if member.state == "unreachable":
        return f"  {name} is {member.state}: {printable(member.detail)}"
    if member.detail:
        return f"  {name}: {printable(member.detail)}"
    return f"  {name} has entries up to {member.match_index}, {member.lag} to go"


@click.command(
    cls=RaftCommand,
    action="join",
    examples="""
    raftctl --node node-01 join node-04 192.168.105.14:5555
    raftctl --node node-01 join node-05 192.168.105.15:5555 --replace node-02
    raftctl --node node-01 join reader 192.168.105.16:5555 --learner
    """,
)
@click.argument("name", type=Utf8())
@click.argument("address", metavar="ADDR", type=Address())
@click.option("--learner", is_flag=True, help="It stays a learner: gets the log, has no vote.")
@click.option("--replace", metavar="NAME", default="", help="This member goes in the same step.")
@if_configuration_option
@no_wait_option
def join(
    name: str, address: str, *, learner: bool, replace: str, if_configuration: int, no_wait: bool
) -> None:
    """Add the node NAME, whose agent runs at ADDR and waits to be joined.

    The leader dials ADDR and adds it as a learner; once it has caught up it becomes a voter. Asking
    again is harmless.
    """
    if learner and replace:
        raise click.UsageError("--learner and --replace exclude each other")
    context = current()
    request = protocol.Join(
        id=1,
        name=name,
        address=address,
        learner=learner,
        replace=replace,
        if_configuration=if_configuration,
    )
    result = change(context, request)
    if not (no_wait or learner):
        result = wait_until_voter(context, name, result, replaced=replace)
    show_change(context, result)


@click.command(
    cls=RaftCommand,
    action="leave",
    examples="""
    raftctl --node node-01 leave node-04
    raftctl --node node-01 leave node-02 --force
    """,
)
@click.argument("name", type=Utf8())
@click.option(
    "--force",
    is_flag=True,
    help="Also when too few of the voters that are left answer at the moment.",
)
@if_configuration_option
def leave(name: str, force: bool, if_configuration: int) -> None:
    """Remove the member NAME, dead or alive. A leader that leaves hands over first.

    Its id is refused for ever, its name is free again. To bring the node back, empty its data
    directory, start it, and run raftctl join.
    """
    context = current()
    request = protocol.Leave(id=1, name=name, force=force, if_configuration=if_configuration)
    show_change(context, change(context, request))
