"""`raftctl doctor`: what is wrong with this set-up, and the command that mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from raftctl.context import Context, current
from raftctl.errors import EXIT_FAILED, CommandError
from raftctl.framework import RaftCommand
from raftctl.output import Output, printable

if TYPE_CHECKING:
    from raftctl.doctor_checks import Finding

_COLORS = {"ok": "green", "warn": "yellow", "fail": "red"}


def finding_line(finding: Finding, out: Output) -> str:
    """ "warn  files      at most 1024 … — ulimit -n 65536"."""
    level = out.colored(f"{finding.level:<4}", _COLORS[finding.level])
    line = f"{level}  {finding.check:<8}  {printable(finding.text)}"
    return f"{line} — {finding.fix}" if finding.fix else line


@click.command(
    cls=RaftCommand,
    action="examine this set-up",
    examples="""
    raftctl --node node-01 doctor
    raftctl --node node-01 -o json doctor
    """,
)
@click.option("--cluster", is_flag=True, help="Have all members compare their states, too.")
def doctor(cluster: bool) -> None:
    """Find what is wrong here, and the command that mends it.

    One line per finding: ok, warn or fail, and behind a dash the command. Exit status 1 when
    something fails. As root or as the agent's user it can also look at the agent's disk.
    """
    context = current()
    findings = examine(context)
    if cluster:
        from raftctl.doctor_states import states  # noqa: PLC0415

        findings += states(context)
    out = context.out
    failed = any(finding.level == "fail" for finding in findings)
    out.result(
        "\n".join(finding_line(finding, out) for finding in findings),
        {"ok": not failed, "findings": findings},
    )
    if failed:
        click.get_current_context().exit(EXIT_FAILED)


def examine(context: Context) -> list[Finding]:
    """Everything that can be looked at from here."""
    from raftctl import doctor_checks as checks  # noqa: PLC0415

    findings = [*checks.machine()]
    if context.endpoint:
        return [*findings, *checks.remote_agent(context)]
    try:
        path = context.socket_path()
    except CommandError as missing:
        findings.append(checks.Finding("fail", "socket", missing.error, missing.hint))
        return findings
    findings += checks.agent(context, path)
    findings += checks.disk(context, path)
    return findings
