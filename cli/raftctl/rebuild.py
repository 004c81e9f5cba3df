"""`raftctl rebuild`: throw away what is wrong at one node, and have it become right again."""

from __future__ import annotations

import pwd
import shlex
import time
from pathlib import Path

import click

from raft_agent.api import protocol
from raftctl.context import Context, current
from raftctl.errors import EXIT_NOT_REACHABLE, CommandError
from raftctl.framework import RaftCommand
from raftctl.output import printable
from raftctl.quantities import Whole
from raftctl.reach import as_user
from raftctl.sockets import SERVICE_USER

_LOOK_EVERY_S = 0.1
_MAX_WAIT_S = 86_400


@click.command(
    cls=RaftCommand,
    action="rebuild",
    examples="""
    raftctl --node node-03 rebuild
    raftctl --node node-03 rebuild --force
    raftctl rebuild --data-dir /var/lib/raft
    """,
)
@click.option(
    "--force",
    is_flag=True,
    help="Also when nothing is known to be wrong, or nobody can refill the log.",
)
@click.option("--no-wait", is_flag=True, help="Don't wait until the node serves again.")
@click.option(
    "--wait",
    "wait_s",
    type=Whole(1, _MAX_WAIT_S),
    default=300,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait until the node serves again.",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The directory of an agent that does not start any more: it is mended at the next start.",
)
def rebuild(force: bool, no_wait: bool, wait_s: int, data_dir: Path | None) -> None:
    """Throw away this node's state and what is damaged on its disk, and make both anew.

    The state is read again from the newest snapshot, which a majority had when it was taken, and
    from the log. A damaged log is cut in front of the damage, and a leader fills it again; until
    then the node neither stands for election nor votes for a log that ends earlier. It keeps its
    identity, and nothing that it has acknowledged is forgotten by the cluster.

    The only voter's damaged log nobody can fill again: restore a backup (raftctl snapshot restore),
    or cut it with --force and go on with what is left: raftctl recover --accept-data-loss.
    """
    context = current()
    if data_dir is not None:
        _mend_at_next_start(context, data_dir, force=force)
        return
    result = context.write(protocol.Rebuild(1, force), protocol.RebuildResult)
    out = context.out
    reason = printable(result.reason)
    out.note(f"Rebuilding, because {reason[:1].lower()}{reason[1:]}")
    status = None if no_wait else _wait_until_it_serves(context, wait_s)
    done = "It starts anew" if status is None else f"{printable(status.node_id)} serves again"
    out.result(
        f"{out.mark(True)} {done}",
        {"reason": result.reason, "last_applied": status.last_applied if status else None},
    )


def _mend_at_next_start(context: Context, data_dir: Path, *, force: bool) -> None:
    from raft_agent.storage.mending import (  # noqa: PLC0415
        InUseError,
        OnlyVoterError,
        UnusableError,
        request_offline,
    )

    is_alone = False
    try:
        try:
            request_offline(data_dir)
        except OnlyVoterError:
            if not force:
                raise
            is_alone = True
            request_offline(data_dir, force=True)
    except (FileNotFoundError, NotADirectoryError):
        raise CommandError(
            f"{data_dir} is not an agent's data directory",
            hint="Give the server.data_dir of the agent's raft.toml",
        ) from None
    except InUseError as busy:
        name = shlex.quote(busy.name) if busy.name else "NAME"
        raise CommandError(
            f"An agent runs on {data_dir}",
            hint=f"Have it do that itself: raftctl --node {name} rebuild",
        ) from None
    except PermissionError as error:
        raise CommandError(
            f"{error.filename or data_dir}: {error.strerror}",
            hint="As the agent's user: "
            + as_user(_owner(data_dir), f"raftctl rebuild --data-dir {shlex.quote(str(data_dir))}"),
        ) from error
    except UnusableError as error:
        raise CommandError(f"It can't be mended: {error}", hint=error.advice) from error
    except OnlyVoterError as error:
        raise CommandError(
            f"This node is the only voter of its cluster, and its log is damaged: {error}",
            hint="Nobody can refill it. Restore a backup: raftctl snapshot restore FILE "
            "--data-dir NEW_DIR. Without one, --force cuts the log in front of the damage; then "
            "start the agent and run there: raftctl recover --accept-data-loss",
        ) from None
    except OSError as error:
        raise CommandError(
            f"{data_dir} can't be written: {error.strerror}",
            hint="Ask as the agent's user or as root, and make room where there is none",
        ) from error
    out = context.out
    text = f"{out.mark(True)} It is mended when the agent starts next\n  Start the agent"
    if is_alone:
        text += f", then go on with what is left: {context.call} recover --accept-data-loss"
    out.result(text, {"reason": "", "last_applied": None})


def _owner(data_dir: Path) -> str:
    """Who the agent of that directory runs as, as far as that can be seen."""
    try:
        return pwd.getpwuid(data_dir.stat().st_uid).pw_name
    except (OSError, KeyError):
        return SERVICE_USER


def _wait_until_it_serves(context: Context, wait_s: int) -> protocol.StatusResult:
    """Until the new start has applied what was committed. Raises CommandError when that takes
    longer than `wait_s`."""
    give_up_at = time.monotonic() + wait_s
    last = "it has not come back"
    while time.monotonic() < give_up_at:
        time.sleep(_LOOK_EVERY_S)
        try:
            status = context.ask(protocol.Status(id=1), protocol.StatusResult)
            context.ask(protocol.Get(1, "\x7f"), protocol.KeyValue)
        except CommandError as error:
            if error.code == protocol.ErrorCode.KEY_NOT_FOUND:
                return status
            if error.exit_status != EXIT_NOT_REACHABLE:
                last = error.error
            continue
        return status
    raise CommandError(
        f"It does not serve after {wait_s} s: {last}",
        "unknown_outcome",
        "See what it does: raftctl events",
    )
