"""The checks of `raftctl doctor`; each gives one finding or a few."""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
import itertools
import os
import resource
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from raft_agent import __version__
from raftctl import dev_process, reach
from raftctl.context import Context
from raftctl.errors import CommandError, paste_ready

if TYPE_CHECKING:
    from raft_agent.api.protocol import HealthResult, StatusResult
    from raft_agent.config import Config

_FILES_WANTED = 4096
_FREE_WARN_BYTES = 2 << 30
_FREE_FAIL_BYTES = 256 << 20
_FSYNC_ROUNDS = 20
_FSYNC_WARN_MS = 20.0
_PAGE = bytes(4096)
_START = "raft-agent --config raft.toml"
# File systems whose data is gone after a reboot, or whose fsync means little.
_VOLATILE = frozenset({"tmpfs", "ramfs"})
_REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs"})
# adjtimex(2): TIME_ERROR, the clock is not synchronised.
_TIME_ERROR = 5


@dataclass(frozen=True)
class Finding:
    """`level`: ok, warn or fail; `check`: one word; `fix`: a command, or empty."""

    level: str
    check: str
    text: str
    fix: str = ""


# --- The machine ----------------------------------------------------------------------------------


def machine() -> Iterator[Finding]:
    """What is true of this machine whether or not an agent runs."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("ok", "python", f"Python {version}, raft-ebpf {__version__}")
    if importlib.util.find_spec("uvloop") is None:
        text = "uvloop is missing: agents work, but slower"
        yield Finding("warn", "uvloop", text, f"{sys.executable} -m pip install uvloop")
    else:
        yield Finding("ok", "uvloop", "uvloop is installed")
    yield _file_limit()
    yield _clock()


def _file_limit() -> Finding:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= _FILES_WANTED:
        shown = "without limit" if hard == resource.RLIM_INFINITY else f"up to {hard}"
        return Finding("ok", "files", f"Open files: {shown}")
    text = f"Open files: only up to {hard}, and every client of an agent takes one"
    return Finding("warn", "files", text, f"ulimit -Hn {_FILES_WANTED * 16}")


def _clock() -> Finding:
    """Only the times of messages depend on it, so that it is never more than a warning."""
    if sys.platform != "linux":
        return Finding("ok", "clock", "Not looked at on this system")
    libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
    # struct timex with modes = 0 only reads; 256 bytes are more than it has on any Linux.
    state = libc.adjtimex(ctypes.create_string_buffer(256))
    if state == _TIME_ERROR:
        text = "The clock is not synchronised: times of messages may be wrong"
        return Finding("warn", "clock", text, "timedatectl set-ntp true")
    if state < 0:
        return Finding("ok", "clock", "The system does not tell whether it is synchronised")
    return Finding("ok", "clock", "The clock is synchronised")


# --- The agent ------------------------------------------------------------------------------------


def agent(context: Context, path: Path) -> Iterator[Finding]:
    """The agent at the socket `path`, and the cluster as it sees it."""
    try:
        info = path.lstat()
    except PermissionError as failure:
        text = f"{path}: {failure.strerror}"
        yield Finding("fail", "socket", text, reach.as_root(f"{context.call} doctor"))
        return
    except OSError as failure:
        text = f"{path}: {failure.strerror}"
        yield Finding("fail", "socket", text, _START)
        return
    if found := reach.not_a_socket(path):
        yield Finding("fail", "socket", found, _START)
        return
    if found := reach.denied(path):
        text = f"{found} (server.ipc_group in raft.toml lets a group in)"
        yield Finding("fail", "socket", text, reach.as_root(f"{context.call} doctor"))
        return
    yield Finding("ok", "socket", f"{path}, mode {info.st_mode & 0o777:04o}, owner {info.st_uid}")
    yield from _asked(context, lambda: _how_to_reach(context, path))


def remote_agent(context: Context) -> Iterator[Finding]:
    """The agent at an endpoint, and the cluster as it sees it."""
    try:
        context.remote()
    except CommandError as failure:
        yield Finding("fail", "tls", failure.error, failure.hint)
        return
    yield Finding("ok", "tls", f"{context.cert} and its key, {context.cacert}")
    yield from _asked(context, lambda: "on that machine: raftctl doctor, and the agent's log")


def _asked(context: Context, how_to_reach: Callable[[], str]) -> Iterator[Finding]:
    from raft_agent.api import protocol  # noqa: PLC0415

    try:
        status = context.ask(protocol.Status(id=1), protocol.StatusResult)
    except CommandError as failure:
        yield Finding("fail", "agent", failure.error, how_to_reach())
        return
    yield _version(status)
    yield from _membership(context, status)
    yield _ebpf(status)
    if not status.cluster_id or status.removed:
        return  # it sees no quorum, but that is not what is wrong
    try:
        health = context.ask(protocol.Health(id=1), protocol.HealthResult)
    except CommandError as failure:
        yield Finding("fail", "quorum", failure.error, paste_ready(failure.hint, context.call))
        return
    joining = {item.name for item in status.members if item.state == "joining"}
    yield from _quorum(context, health, joining)
    yield from _exports(context)


def _how_to_reach(context: Context, path: Path) -> str:
    try:
        if dev_process.listener_pid(path) is None:
            return _START
    except OSError:
        pass
    return f"{context.call} --timeout 30 doctor"


def _version(status: StatusResult) -> Finding:
    if status.version == __version__:
        return Finding("ok", "agent", f"{status.node_id} answers, version {status.version}")
    text = f"{status.node_id} has version {status.version}, raftctl has {__version__}"
    return Finding("warn", "agent", text, "pip install --upgrade raft-ebpf, on both sides")


def _membership(context: Context, status: StatusResult) -> Iterator[Finding]:
    from raft_agent.api import protocol  # noqa: PLC0415

    if not status.cluster_id:
        text = f"{status.node_id} belongs to no cluster yet"
        if status.note:  # says what to do
            yield Finding("fail", "cluster", f"{text}: {status.note}")
        else:
            yield Finding("fail", "cluster", text, f"{context.call} events --limit 20")
        return
    if status.removed:
        yield Finding("fail", "note", status.note)
        return
    if status.note:
        yield Finding("warn", "note", status.note, f"{context.call} events --limit 20")
    since = f", generation {status.generation}" if status.generation else ""
    text = f"{len(status.members)} members, cluster {status.cluster_id}{since}"
    yield Finding("ok", "cluster", text)
    if status.leader:
        yield Finding("ok", "leader", f"{status.leader}, term {status.term}")
    else:
        text = f"{status.node_id} knows no leader, term {status.term}"
        yield Finding("fail", "leader", text, f"{context.call} events --limit 20")
    if len(status.voters) == 2:
        text = "Two voters: the loss of either stops all writes; three survive one"
        yield Finding("warn", "voters", text)
    else:
        for text in protocol.voter_warnings(len(status.voters)):
            yield Finding("warn", "voters", text)


def _ebpf(status: StatusResult) -> Finding:
    text = f"eBPF is {status.ebpf.state}"
    if status.ebpf.reason:
        text += f": {status.ebpf.reason}"
    good = status.ebpf.state in ("off", "attached")
    return Finding("ok" if good else "warn", "ebpf", text, status.ebpf.fix)


def _exports(context: Context) -> Iterator[Finding]:
    """Of a node that keeps exported maps, and is asked by somebody who may know."""
    from raft_agent.api import protocol  # noqa: PLC0415

    try:
        found = context.ask(protocol.ExportList(id=1), protocol.ExportListResult)
    except CommandError:
        return
    if found.state == "off" or not found.exports:
        return
    text = f"{len(found.exports)} exported maps, {found.state} at index {found.applied_index}"
    if found.state == "degraded":
        yield Finding("fail", "exports", f"{text}: {found.reason}", f"{context.call} export list")
    elif not found.fresh_ms:
        why = "they count as fresh no longer, or not yet"
        yield Finding("warn", "exports", f"{text}: {why}", f"{context.call} export list")
    else:
        yield Finding("ok", "exports", text)


def _quorum(context: Context, health: HealthResult, joining: set[str]) -> Iterator[Finding]:
    """`joining`: the names of the learners that are to become voters."""
    from raftctl.health import no_quorum_text  # noqa: PLC0415

    if health.quorum:
        yield Finding("ok", "quorum", "A majority of the voters answers the leader")
    else:
        yield Finding("fail", "quorum", no_quorum_text(health), f"{context.call} health")
    for member in health.members:
        if member.state != "healthy":
            differs = member.state == "differs"
            is_so = "differs" if differs else f"is {member.state}"
            text = f"{member.name} at {member.address} {is_so}"
            if member.detail:
                text += f": {member.detail}"
            if member.name in joining:
                text += "; it becomes a voter once it has caught up"
            level, command = ("fail", "rebuild") if differs else ("warn", "doctor")
            yield Finding(level, "member", text, f"raftctl --node {member.name} {command}")


# --- Its disk -------------------------------------------------------------------------------------


def disk(context: Context, path: Path) -> Iterator[Finding]:
    """The data directory of the agent at the socket, as far as this user may see it."""
    from raft_agent.config import ConfigError  # noqa: PLC0415

    try:
        pid = dev_process.listener_pid(path)
        config = _config_of(pid) if pid else None
    except ConfigError as failure:
        first = failure.problems[0]
        text = f"The agent would not start again: {first.text}"
        yield Finding("fail", "config", text, "raft-agent --check --config raft.toml")
        return
    except OSError as failure:
        text = f"The agent's configuration can't be read: {failure.strerror}"
        yield Finding("warn", "config", text, reach.as_root(f"{context.call} doctor"))
        return
    if config is None:
        text = "The agent's configuration can't be seen from here, so its disk was not looked at"
        fix = reach.as_root(f"{context.call} doctor") if os.geteuid() else ""
        yield Finding("warn", "config", text, fix)
        return
    for note in config.notes:
        yield Finding("warn", "config", note)
    from raftctl.doctor_certificates import certificates  # noqa: PLC0415  # it needs this module

    yield from certificates(config)
    yield from _data_dir(Path(config.server.data_dir))


def _config_of(pid: int) -> Config | None:
    """The configuration that the agent with that pid was started with."""
    from raft_agent.config import load  # noqa: PLC0415

    found = dev_process.config_of(pid)
    if found is None:
        return None
    arguments = dev_process.command_line(pid)
    settings = [value for name, value in itertools.pairwise(arguments) if name == "--set"]
    process = Path(f"/proc/{pid}")
    raw = (process / "environ").read_bytes()
    environ = dict(os.fsdecode(item).partition("=")[::2] for item in raw.split(b"\0") if item)
    folder = (process / "cwd").readlink()
    return load(folder / found, overrides=settings, environ=environ)


def _data_dir(folder: Path) -> Iterator[Finding]:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as failure:
        text = f"{folder}: {failure.strerror}"
        yield Finding("warn", "disk", text, f"ls -ld {folder}")
        return
    kind = _file_system(folder)
    if kind in _VOLATILE:
        text = f"{folder} is on {kind}: the data is gone after a reboot, acknowledged or not"
        yield Finding("fail", "disk", text, "set server.data_dir to a directory on a disk")
    elif kind in _REMOTE:
        text = f"{folder} is on {kind}: its fsync and locks depend on another machine"
        yield Finding("warn", "disk", text, "set server.data_dir to a directory on a local disk")
    shown = f"{free / (1 << 30):.1f} GiB free in {folder}"
    if free < _FREE_FAIL_BYTES:
        yield Finding("fail", "space", shown, f"du -sh {folder}/*")
    elif free < _FREE_WARN_BYTES:
        yield Finding("warn", "space", shown, f"du -sh {folder}/*")
    else:
        yield Finding("ok", "space", shown)
    yield _fsync(folder)


def _file_system(folder: Path) -> str:
    """The type of the file system that holds the directory; empty when it can't be told."""
    best, kind = "", ""
    target = str(folder.resolve())
    try:
        mounts = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return ""
    for line in mounts:
        _device, mount, mount_kind, *_rest = line.split()
        mount = mount.replace("\\040", " ")  # proc(5): spaces are written in octal
        inside = target == mount or target.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, mount_kind
    return kind


def _fsync(folder: Path) -> Finding:
    """How long fdatasync takes there. The file has no name (O_TMPFILE), so that nothing foreign
    ever stands in the data directory.
    """
    try:
        fd = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
    except (OSError, AttributeError):
        return Finding(
            "ok", "fsync", f"Not measured: {folder} takes no unnamed file from this user"
        )
    times_ms = []
    try:
        for round_number in range(_FSYNC_ROUNDS):
            os.pwrite(fd, _PAGE, round_number * len(_PAGE))
            begin = time.perf_counter()
            os.fdatasync(fd)
            times_ms.append((time.perf_counter() - begin) * 1000)
    except OSError as failure:
        return Finding("fail", "fsync", f"fdatasync fails in {folder}: {failure.strerror}", "dmesg")
    finally:
        os.close(fd)
    median = statistics.median(times_ms)
    text = f"fdatasync takes {median:.2f} ms in {folder} (at most {max(times_ms):.2f} ms)"
    if median > _FSYNC_WARN_MS:
        return Finding("warn", "fsync", f"{text}: every write takes that long", "iostat -x 1")
    return Finding("ok", "fsync", text)
