"""`raftctl completion`: the scripts that make a shell complete raftctl's commands and nodes."""

from __future__ import annotations

import click

from raftctl.framework import RaftCommand

_VARIABLE = "_RAFTCTL_COMPLETE"


@click.command(
    cls=RaftCommand,
    action="print the completion script",
    examples="""
    source <(raftctl completion bash)
    raftctl completion zsh > "${fpath[1]}/_raftctl"
    raftctl completion fish > ~/.config/fish/completions/raftctl.fish
    """,
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script for a shell's completion.

    Commands, options and the names of the nodes on this machine are completed.
    """
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    from raftctl.main import cli  # noqa: PLC0415

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"click knows no completion for {shell}")
    click.echo(kind(cli, {}, "raftctl", _VARIABLE).source())
