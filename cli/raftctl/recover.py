"""`raftctl recover`: going on when a majority is lost for good."""

from __future__ import annotations

import time

import click
import msgspec

from raft_agent.api import protocol
from raftctl.context import Context, current
from raftctl.errors import CommandError, paste_ready
from raftctl.framework import RaftCommand
from raftctl.output import printable, table

_LOOK_EVERY_S = 0.05
_LEADS_WITHIN_S = 10.0
_STATES = {
    "here": "this member",
    "survives": "answers",
    "unable": "answers, but can't take part",
    "other_generation": "is of another generation",
    "unreachable": "does not answer",
}


def survey_text(result: protocol.RecoverResult) -> str:
    rows = [("NAME", "ADDRESS", "LAST TERM", "LAST INDEX", "STATE")]
    for item in result.members:
        state = _STATES.get(item.state, item.state)
        if item.detail:
            state += f": {item.detail}"
        has_log = item.term > 0
        rows.append(
            (
                printable(item.name),
                printable(item.address),
                str(item.term) if has_log else "-",
                str(item.index) if has_log else "-",
                printable(state),
            )
        )
    return table(rows)


@click.command(
    cls=RaftCommand,
    action="recover",
    examples="""
    raftctl --node node-02 recover --dry-run
    raftctl --node node-02 recover --accept-data-loss
    """,
)
@click.option(
    "--accept-data-loss",
    is_flag=True,
    help="Writes that only the lost members had, acknowledged ones too, are gone.",
)
@click.option(
    "--dry-run", is_flag=True, help="Only show what each survivor has, and where to go on."
)
def recover(*, accept_data_loss: bool, dry_run: bool) -> None:
    """Go on with this member alone, when most of the voters are lost for good.

    Asks all members that can be reached how complete their logs are, and refuses anywhere but at
    the best, while a majority answers, and while a leader is known. The cluster then begins a new
    generation with everything that this member has; the other survivors put their data aside and
    come in again by themselves; the lost ones are removed and refused for ever.

    Make sure first that the lost members stay off: nobody can tell from here whether they are gone
    or only out of reach. Two halves that both go on are two clusters.
    """
    context = current()
    if not (accept_data_loss or dry_run):
        raise click.UsageError(
            "This gives up whatever only the lost members had: look with --dry-run, then give "
            "--accept-data-loss"
        )
    found = context.ask(protocol.Recover(id=1), protocol.RecoverResult)
    found = msgspec.structs.replace(found, hint=paste_ready(found.hint, context.call))
    if dry_run:
        _show(context, found, _verdict(context, found))
        return
    context.out.note(survey_text(found))
    if found.refusal:
        raise _refused(found)
    request = protocol.Recover(id=1, accept_data_loss=True)
    result = context.write(request, protocol.RecoverResult)
    _wait_until_it_leads(context, result)
    others = [item.name for item in result.members if item.state in ("survives", "unable")]
    lines = [
        f"{context.out.mark(True)} Generation {result.generation} of the cluster has begun with "
        f"index {result.index}: {printable(result.best)} leads it"
    ]
    if others:
        lines.append(f"  Come in again by themselves: {printable(', '.join(others))}")
    lines.append(f"  Replace the lost members: {context.call} join NAME ADDR")
    context.out.result("\n".join(lines), result)


def _verdict(context: Context, found: protocol.RecoverResult) -> str:
    out = context.out
    if not found.refusal:
        return (
            f"{out.mark(True)} {printable(found.best)} is the one to recover at\n"
            f"  When the lost ones stay off for sure: {context.call} recover --accept-data-loss"
        )
    text = f"{out.mark(False)} {printable(found.refusal)}"
    return f"{text}\n  Hint: {printable(found.hint)}" if found.hint else text


def _show(context: Context, found: protocol.RecoverResult, verdict: str) -> None:
    context.out.result(f"{survey_text(found)}\n{verdict}", found)
    if found.refusal:
        click.get_current_context().exit(1)


def _refused(found: protocol.RecoverResult) -> CommandError:
    return CommandError(found.refusal, "refused", found.hint, found.best)


def _wait_until_it_leads(context: Context, result: protocol.RecoverResult) -> None:
    """Until all that this member had is committed, so that it serves. Raises CommandError that says
    what has begun, whatever keeps it from knowing more."""
    give_up_at = time.monotonic() + _LEADS_WITHIN_S
    try:
        while True:
            why = _why_not_yet(context, result)
            if not why:
                return
            if time.monotonic() >= give_up_at:
                break
            time.sleep(_LOOK_EVERY_S)
    except KeyboardInterrupt:
        why = "this was interrupted"
    raise CommandError(
        f"Generation {result.generation} has begun, but {why}",
        "unknown_outcome",
        "See what it waits for: raftctl status; raftctl events",
    )


def _why_not_yet(context: Context, result: protocol.RecoverResult) -> str:
    """Why it is not known to serve; nothing when it does."""
    try:
        status = context.ask(protocol.Status(id=1), protocol.StatusResult)
    except CommandError as failure:
        return failure.error
    if status.role == "leader" and status.commit_index > result.index:
        return ""
    return "nobody leads it yet"
