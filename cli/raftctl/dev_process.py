"""Agents as background processes: started, recognised and ended by their pid alone."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from raftctl.errors import CommandError

_POLL_S = 0.02
_EXEC_POLL_S = 0.001
_EXEC_PATIENCE_S = 1.0  # kernel threads never have any
_LOG_TAIL_LINES = 5


def agent_command(config: Path, *options: str) -> list[str]:
    """The agent that belongs to this raftctl: next to its interpreter, else as a module."""
    script = Path(sys.executable).with_name("raft-agent")
    program = [str(script)] if script.is_file() else [sys.executable, "-m", "raft_agent.main"]
    return [*program, "--config", str(config), *options]


def spawn(command: Sequence[str], folder: Path, log: Path) -> int:
    """Starts an agent that outlives raftctl; the pid. Its output is appended to `log`.

    Variables that would override raft.toml are kept from it: the files say what runs.
    """
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("RAFT_") or name.startswith("RAFT_LOG")
    }
    try:
        with log.open("ab") as output:
            child = subprocess.Popen(  # noqa: S603  # the command is built here
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=folder,
                env=env,
                start_new_session=True,
            )
    except OSError as failure:
        raise CommandError(
            f"Can't start {command[0]}: {failure.strerror}",
            hint=f"Is it installed, and can {log} be written? Then raftctl dev up again",
        ) from failure
    child.returncode = 0  # it is meant to live on; without this Popen warns when collected
    return child.pid


def command_line(pid: int) -> list[str]:
    """The process's arguments; empty when it is gone (a zombie is)."""
    if sys.platform == "linux":
        return [os.fsdecode(part) for part in _shown_arguments(pid).split(b"\0")[:-1]]
    listing = subprocess.run(  # noqa: S603
        ["/bin/ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return listing.stdout.split()


def _shown_arguments(pid: int) -> bytes:
    """In the middle of execve(2) proc(5) shows no arguments, as for a zombie; Popen returns just
    then. Waits until they are there, or the process has ended.
    """
    deadline = time.monotonic() + _EXEC_PATIENCE_S
    try:
        while not (raw := Path(f"/proc/{pid}/cmdline").read_bytes()):
            state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
            if state in (b"Z", b"X") or time.monotonic() > deadline:
                break
            time.sleep(_EXEC_POLL_S)
    except OSError:
        return b""
    return raw


def runs_config(pid: int, config: Path) -> bool:
    """Whether that process is an agent with this configuration: pids are given out again."""
    return str(config) in command_line(pid)


def config_of(pid: int) -> Path | None:
    """The configuration file of the agent with that pid, when it is one."""
    arguments = command_line(pid)
    if "--config" in arguments[:-1]:
        return Path(arguments[arguments.index("--config") + 1])
    return None


def listener_pid(path: Path) -> int | None:
    """The pid of the process that listens on the Unix socket; None when nobody does; 0 when the
    system does not say who.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(1.0)
        try:
            sock.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except OSError:
            return 0  # somebody's, but not ours to talk to
        if sys.platform != "linux":
            return 0
        # unix(7): struct ucred { pid_t pid; uid_t uid; gid_t gid; } of the process that called
        # listen(2).
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int(struct.unpack("iII", credentials)[0])


def end(pids: dict[str, tuple[int, Path]], patience_s: float) -> list[str]:
    """SIGTERM to each process that runs its configuration, SIGKILL to those that are still there
    after `patience_s`. `pids`: name to (pid, configuration). The names that had to be killed.
    """
    running = {name: pid for name, (pid, config) in pids.items() if runs_config(pid, config)}
    for pid in running.values():
        _signal(pid, signal.SIGTERM)
    deadline = time.monotonic() + patience_s
    killed = [name for name, pid in running.items() if not _wait_gone(pid, deadline)]
    for name in killed:
        _signal(running[name], signal.SIGKILL)
    deadline = time.monotonic() + patience_s
    for name in killed:
        if not _wait_gone(running[name], deadline):
            raise CommandError(
                f"{name} (pid {running[name]}) does not end even after SIGKILL",
                hint=f"Look at what it waits for: cat /proc/{running[name]}/stack",
            )
    return killed


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
    except PermissionError as refused:
        raise CommandError(
            f"Not allowed to end the agent with pid {pid}", hint="Another user started it: use sudo"
        ) from refused


def _wait_gone(pid: int, deadline: float) -> bool:
    """Waits for the end of a process that need not be our child. False when time ran out."""
    if hasattr(os, "pidfd_open"):
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        except OSError:
            return _poll_gone(pid, deadline)
        try:
            poller = select.poll()
            poller.register(fd, select.POLLIN)
            gone = bool(poller.poll(max(0.0, deadline - time.monotonic()) * 1000))
        finally:
            os.close(fd)
        _reap(pid)
        return gone
    return _poll_gone(pid, deadline)


def _poll_gone(pid: int, deadline: float) -> bool:
    while command_line(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    _reap(pid)
    return True


def _reap(pid: int) -> None:
    """In case it was started by this very process."""
    with contextlib.suppress(OSError):
        os.waitpid(pid, os.WNOHANG)


def log_size(log: Path) -> int:
    """How many bytes the log of an agent has; 0 when there is none yet."""
    try:
        return log.stat().st_size
    except OSError:
        return 0


def last_lines(log: Path, begin: int) -> list[str]:
    """The end of what an agent has logged since its log had `begin` bytes."""
    try:
        with log.open("rb") as file:
            file.seek(begin)
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    return lines[-_LOG_TAIL_LINES:]
