"""The entry point of `raftctl`: global options and the table of commands."""

from __future__ import annotations

import errno
import sys

import click

from raftctl.errors import EXIT_FAILED
from raftctl.framework import LazyGroup
from raftctl.options import global_options
from raftctl.output import Output, give_up_stdout

_OUTPUT_FAILS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EBADF})

COMMANDS: dict[str, tuple[str, str, str]] = {
    "status": ("raftctl.status", "status", "Show a node's role, term, log and peers."),
    "health": ("raftctl.health", "health", "Show every member and whether there is a quorum."),
    "send": ("raftctl.messages", "send", "Append a text to the replicated message log."),
    "messages": ("raftctl.messages", "messages", "Show the newest messages."),
    "watch": ("raftctl.messages", "watch", "Show messages as they arrive."),
    "propose": ("raftctl.propose", "propose", "Read, write and watch keys."),
    "lease": ("raftctl.lease", "lease", "Grant, keep and revoke leases."),
    "lock": ("raftctl.lock", "lock", "Hold a lock while a command runs."),
    "join": ("raftctl.membership", "join", "Add a member."),
    "leave": ("raftctl.membership", "leave", "Remove a member."),
    "member": ("raftctl.members", "member", "List, promote and move the members."),
    "leader": ("raftctl.members", "leader", "Hand leadership over."),
    "settings": ("raftctl.settings", "settings", "Show and change replicated settings."),
    "snapshot": ("raftctl.snapshot", "snapshot", "Save and restore backups."),
    "recover": ("raftctl.recover", "recover", "Go on after the loss of a majority."),
    "events": ("raftctl.events", "events", "Show what happened at a node."),
    "top": ("raftctl.top", "top", "Watch the cluster live: members, log, latencies, events."),
    "doctor": ("raftctl.doctor", "doctor", "Find what is wrong here, and the command for it."),
    "rebuild": (
        "raftctl.rebuild",
        "rebuild",
        "Rebuild a node whose state is wrong or whose log is damaged.",
    ),
    "kernel": ("raftctl.kernel", "kernel", "Show what the program in the kernel has seen."),
    "export": ("raftctl.export", "export", "Export keys to eBPF maps in every node's kernel."),
    "fault": ("raftctl.faults", "fault", "Lose packets or turn bits on purpose, for tests."),
    "bench": ("raftctl.bench", "bench", "Measure writes and reads a second, and their latency."),
    "dev": ("raftctl.dev", "dev", "Run a cluster on this machine."),
    "cert": ("raftctl.cert", "cert", "Make certificates."),
    "completion": (
        "raftctl.completion",
        "completion",
        "Print the script for a shell's completion.",
    ),
    "debug": ("raftctl.debug", "debug", "Collect what a bug report needs."),
}

EXAMPLES = """
raftctl --node node-02 status
raftctl --node node-01 --forward send "Hello from the RAFT cluster!"
raftctl --node node-01 -o json propose get mykey
raftctl dev up --nodes 3
"""


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from raft_agent import __version__  # noqa: PLC0415

    click.echo(f"raftctl {__version__}")
    ctx.exit()


cli = LazyGroup(
    "raftctl",
    lazy=COMMANDS,
    params=[
        *global_options(hidden=False),
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_version,
            help="Print the version and end.",
        ),
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    examples=EXAMPLES,
    help="""Talk to the agents of a Raft cluster.

    The options below may stand before or after the command.

    \b
    Exit status: 0 done; 1 refused or failed, nothing changed; 2 usage;
    3 outcome unknown (it may still happen); 4 key not found;
    5 agent not reachable; 6 no leader or no quorum.

    With -o json or yaml, results go to standard output and prose to standard error; an error is
    an object {error, code, hint, leader} on standard output, besides its prose on standard error.
    messages, watch, propose watch and events then print one JSON object a line.
    """,
)


def main() -> None:
    """Runs raftctl with the process's arguments; ends the process with its exit status."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that can't show ✓ must not turn a done write into a traceback. A stream that
        # was closed before the start is None.
        if stream is not None:
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        cli.main(prog_name="raftctl")
    except OSError as failure:
        # --help and the like are written by click.
        if failure.errno not in _OUTPUT_FAILS:
            raise
        give_up_stdout()
        Output().note(f"✗ Can't write to standard output: {failure.strerror}")
        sys.exit(EXIT_FAILED)


if __name__ == "__main__":
    main()
