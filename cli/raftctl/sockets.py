"""Which Unix socket belongs to a node's name, and whether it may be trusted."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from raftctl.errors import NOT_REACHABLE, CommandError

SERVICE_USER = "raft"
DEFAULT_NODE = "node-0"

# Where agents put their sockets: (folder, what stands before and after the name).
_PLACES = ((Path("/run/raft"), "", ".sock"), (Path("/tmp"), "raft-", ".sock"))  # noqa: S108


def usual_paths(node: str) -> list[Path]:
    """The places where the node's socket may be, in the order in which they are looked at."""
    return [folder / f"{prefix}{node}{suffix}" for folder, prefix, suffix in _PLACES]


def trusted_uids() -> set[int]:
    """Users whose sockets are taken: root, oneself, and the service's user when there is one."""
    uids = {0, os.geteuid()}
    import pwd  # noqa: PLC0415  # only when a socket is looked for

    with contextlib.suppress(KeyError):
        uids.add(pwd.getpwnam(SERVICE_USER).pw_uid)
    return uids


def _is_trusted(path: Path) -> bool:
    """False when nothing is there. Raises CommandError for what must not be taken.

    /tmp is open to everybody: without this check any user could play the agent and read what is
    sent to it. lstat, because a symbolic link would move the check to somebody else's target.
    """
    try:
        info = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError as refused:
        raise CommandError(
            f"Not allowed to look at {path}",
            NOT_REACHABLE,
            "Run as root or as a member of the agent's ipc_group",
        ) from refused
    if not stat.S_ISSOCK(info.st_mode):
        raise CommandError(
            f"{path} is not a socket",
            NOT_REACHABLE,
            f"Look at it with: ls -l {path}; or give the right one with --socket",
        )
    if info.st_uid not in trusted_uids():
        raise CommandError(
            f"{path} belongs to {user_name(info.st_uid)}, not to root, you or {SERVICE_USER}",
            NOT_REACHABLE,
            f"If you trust that user's agent, name the socket: --socket {path}",
        )
    return True


def user_name(uid: int) -> str:
    """ "user alice", or "user 1000" when the system knows no name."""
    import pwd  # noqa: PLC0415

    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"


def find_socket(node: str) -> Path:
    """The socket of the node. Raises CommandError (not reachable) when there is none to trust."""
    paths = usual_paths(node)
    for path in paths:
        if _is_trusted(path):
            return path
    others = nodes_at_hand()
    looked = " nor ".join(map(str, paths))
    hint = "Start the agent: raft-agent --config raft.toml; or a cluster: raftctl dev up"
    if others:
        hint = f"Agents on this machine: {', '.join(others)} (choose with --node NAME)"
    raise CommandError(f"No agent {node} here: there is no {looked}", NOT_REACHABLE, hint)


def the_only_node() -> str:
    """The name of the one node that has a socket here; empty when there are several, or none, or
    one of the default name."""
    names = nodes_at_hand()
    return names[0] if len(names) == 1 and DEFAULT_NODE not in names else ""


def nodes_at_hand() -> list[str]:
    """Names of the nodes that have a trusted socket on this machine (which may be a dead one)."""
    names = set()
    for folder, prefix, suffix in _PLACES:
        try:
            found = list(folder.glob(f"{prefix}*{suffix}"))
        except OSError:
            continue
        for path in found:
            try:
                if _is_trusted(path):
                    names.add(path.name[len(prefix) : -len(suffix)])
            except CommandError:
                continue
    return sorted(names)
