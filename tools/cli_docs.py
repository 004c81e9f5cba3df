"""Prints docs/cli.md from the help of raftctl and raft-agent, or writes it to the path given."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Iterator

import click

from raft_agent.main import command_line
from raftctl.framework import RaftCommand, RaftGroup
from raftctl.main import cli
from tools.pages import put_out

HEAD = """\
# Commands

*Written by `make docs` from what `--help` says.*

`raftctl` talks to a running agent; [raft-agent](#raft-agent) is that agent. Which errors there are,
and what they mean to a program, is in the [protocol](protocol.md#replies).
"""

# Of their short names, --help is everybody's.
_HELP = {"-h", "--help"}


def commands(
    group: click.Group, context: click.Context
) -> Iterator[tuple[click.Command, click.Context]]:
    """The commands below a group, each with its own context, as `--help` lists them."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        own = click.Context(command, info_name=name, parent=context)
        yield command, own
        if isinstance(command, click.Group):
            yield from commands(command, own)


def cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def paragraphs(text: str) -> list[str]:
    """A help in Markdown; a paragraph that click does not wrap (`\\b`) keeps its lines."""
    lines: list[str] = []
    for part in inspect.cleandoc(text).split("\n\n"):
        if part.startswith("\b"):
            lines += ["```text", part.removeprefix("\b").strip("\n"), "```", ""]
        else:
            lines += [part.replace("<", "\\<").replace("*", "\\*"), ""]
    return lines


def options(command: click.Command, context: click.Context) -> list[str]:
    records = [
        found
        for param in command.get_params(context)
        if isinstance(param, click.Option)
        and not _HELP.intersection(param.opts)
        and (found := param.get_help_record(context))
    ]
    if not records:
        return []
    rows = [f"| `{cell(names)}` | {cell(text)} |" for names, text in records]
    return ["| option | meaning |", "|---|---|", *rows, ""]


def section(command: click.Command, context: click.Context, depth: int) -> list[str]:
    path = context.command_path
    lines = [f"{'#' * depth} {path}", ""]
    lines += ["```text", f"{path} {' '.join(command.collect_usage_pieces(context))}", "```", ""]
    lines += paragraphs(command.help or "")
    lines += options(command, context)
    if isinstance(command, RaftCommand | RaftGroup) and command.examples:
        kept = [line.strip() for line in command.examples.strip().splitlines()]
        lines += ["```text", *kept, "```", ""]
    return lines


def agent() -> list[str]:
    """The same of raft-agent, which reads its command line with argparse."""
    parser = command_line()
    lines = ["## raft-agent", "", "```text", "raft-agent --config FILE [OPTIONS]", "```", ""]
    lines += [parser.description or "", "", parser.epilog or "", ""]
    lines += ["| option | meaning |", "|---|---|"]
    for action in parser._actions:  # argparse shows them only as text
        if _HELP.intersection(action.option_strings) or action.help == argparse.SUPPRESS:
            continue
        names = ", ".join(action.option_strings)
        names += f" {action.metavar}" if action.metavar else ""
        lines.append(f"| `{cell(names)}` | {cell(action.help or '')} |")
    return [*lines, ""]


def page() -> str:
    top = click.Context(cli, info_name="raftctl")
    found = list(commands(cli, top))
    depths = [context.command_path.count(" ") + 1 for _, context in found]
    lines = [HEAD]
    for (command, context), depth in zip(found, depths, strict=True):
        if depth == 2:
            anchor = context.command_path.replace(" ", "-")
            lines.append(f"- [{context.command_path}](#{anchor}): {short(command)}")
    lines += ["", *section(cli, top, 2)]
    for (command, context), depth in zip(found, depths, strict=True):
        lines += section(command, context, min(depth + 1, 4))
    return "\n".join([*lines, *agent()]).rstrip() + "\n"


def short(command: click.Command) -> str:
    return command.get_short_help_str(1000)


if __name__ == "__main__":
    put_out(page())
