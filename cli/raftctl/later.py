"""Commands of the contract that a later version brings: named in --help, refused when used."""

from __future__ import annotations

import click

from raftctl.errors import not_in_this_version
from raftctl.framework import RaftCommand, RaftGroup


def later_command(path: str, summary: str, example: str) -> RaftCommand:
    """A command that takes any arguments and answers that it is not in this version."""

    def refuse() -> None:
        raise not_in_this_version(f"raftctl {path}")

    return RaftCommand(
        path.rpartition(" ")[2],
        callback=refuse,
        params=[click.Argument(["arguments"], nargs=-1, expose_value=False)],
        action=f"run {path}",
        help=f"{summary} (not in this version)",
        short_help=f"{summary} (not in this version)",
        examples=f"raftctl {example}",
        context_settings={"ignore_unknown_options": True},
    )


def _group(name: str, summary: str, commands: dict[str, tuple[str, str]]) -> RaftGroup:
    text = f"{summary} (not in this version)"
    examples = "\n".join(f"raftctl {name} {example}" for _line, example in commands.values())
    group = RaftGroup(name, help=text, short_help=text, examples=examples)
    for command, (line, example) in commands.items():
        group.add_command(later_command(f"{name} {command}", line, f"{name} {example}"))
    return group


snapshot = _group(
    "snapshot",
    "Save and restore backups.",
    {
        "save": ("Write a backup.", "save backup.raft"),
        "status": ("Show what a backup holds.", "status backup.raft"),
        "restore": (
            "Make a new cluster from a backup.",
            "restore backup.raft --data-dir /var/lib/raft",
        ),
    },
)
recover = later_command(
    "recover", "Go on after the loss of a majority.", "recover --accept-data-loss --dry-run"
)
debug = _group(
    "debug",
    "Collect what a bug report needs.",
    {"bundle": ("Everything about this node, without secrets.", "bundle report.tar.gz")},
)
