"""Why an agent's socket leads nowhere, in words that say who may and what to do."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import sys
from pathlib import Path

from raftctl.sockets import user_name

# sudoers(5), secure_path: what Debian and others let sudo find programs in.
_SUDO_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def as_root(call: str) -> str:
    """`call` ("raftctl …") for root: with the program's place when sudo would not find it."""
    return _by_sudo("sudo", call)


def as_user(user: str, call: str) -> str:
    """The same for another user."""
    return _by_sudo(f"sudo -u {shlex.quote(user)}", call)


def _by_sudo(sudo: str, call: str) -> str:
    program = Path(sys.argv[0])
    if program.name != "raftctl" or shutil.which("raftctl", path=_SUDO_PATH):
        return f"{sudo} {call}"
    return f"{sudo} {shlex.quote(str(program.absolute()))}{call.removeprefix('raftctl')}"


def not_a_socket(path: Path) -> str:
    """What stands at `path` instead of a socket; empty when one does, or nothing."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return ""
    if stat.S_ISDIR(mode):
        return f"{path} is a directory, not a socket"
    return "" if stat.S_ISSOCK(mode) else f"{path} is not a socket"


def denied(path: Path) -> str:
    """Who is kept from opening the socket by its mode; empty when this user may."""
    # connect(2): EACCES unless the caller may write to the socket's file.
    if os.access(path, os.W_OK):
        return ""
    me = user_name(os.geteuid())
    try:
        info = path.stat()
    except FileNotFoundError:
        return ""
    except OSError:
        return f"{me} may not open {path}"
    mode = f"mode {stat.S_IMODE(info.st_mode):04o}"
    owner = f"it belongs to {user_name(info.st_uid)}"
    return f"{me} may not open {path}: {owner}, {mode}"


def denied_hint(call: str) -> str:
    """What may be done about it; `call`: what was called, for this agent."""
    return (
        f"As its owner or as root: {as_root(call)}; or let a group in by server.ipc_group "
        "in the agent's raft.toml"
    )
