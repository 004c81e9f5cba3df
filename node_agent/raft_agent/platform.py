"""What differs between Linux and macOS: syncing files, clocks, and what sockets know.

This is the only module that asks which system it runs on.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import pwd
import resource
import socket
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# struct tcp_info of <linux/tcp.h>: eight one-byte fields, then __u32 tcpi_rto, ato, snd_mss,
# rcv_mss, unacked, sacked, lost, retrans, fackets, last_data_sent, last_ack_sent, last_data_recv
# (milliseconds). The kernel only ever adds fields at the end.
_TCP_LAST_DATA_RECV_OFFSET = 52
_U32 = struct.Struct("=I")
# Behind the __u32 fields: __u64 tcpi_pacing_rate, max_pacing_rate, bytes_acked, bytes_received.
_TCP_BYTES_RECEIVED_OFFSET = 128
_U64 = struct.Struct("=Q")

_DIRECT_WRITE_BYTES = 1 << 20

_UCRED = struct.Struct("=iII")  # struct ucred of unix(7): pid, uid, gid
_XUCRED = struct.Struct("=IIh2xI")  # struct xucred of macOS: version, uid, group count, first group
_LINUX_SO_PEERGROUPS = 59  # since 4.13; the socket module does not name it
_GID = struct.Struct("=I")
_GETSOCKOPT_BYTES = 1024  # the most that Python's getsockopt gives
_MACOS_SOL_LOCAL = 0
_MACOS_LOCAL_PEERCRED = 1
_MACOS_LOCAL_PEERPID = 2


# On an idle connection the first keepalive probe is sent after so long, others at this interval.
_KEEPALIVE_IDLE_S = 10
_KEEPALIVE_INTERVAL_S = 5

# It never goes back and counts suspended time too; on macOS CLOCK_MONOTONIC does so.
BOOT_CLOCK = time.CLOCK_BOOTTIME if sys.platform == "linux" else time.CLOCK_MONOTONIC


def open_files_limit() -> int:
    """How many files, sockets among them, this process may have open (RLIMIT_NOFILE)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


def sync_data(fd: int) -> None:
    """Return once the file's bytes, and its length if it grew, are on the medium. Raises OSError.

    macOS: fsync(2) stops at the drive's cache there; only F_FULLFSYNC empties it.
    """
    if sys.platform == "darwin":
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(fd)


def sync_file(fd: int) -> None:
    """Like `sync_data`, with all of the file's metadata; also for directories. Raises OSError."""
    if sys.platform == "darwin":
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fsync(fd)


def reserve(fd: int, size_bytes: int) -> None:
    """Make the file `size_bytes` long with its blocks reserved in as few pieces as possible.

    Raises OSError (ENOSPC, EDQUOT) when there is no room. Where the system or the file system
    can't reserve, this does nothing: whoever writes afterwards finds out.
    """
    if sys.platform != "darwin":
        try:
            os.posix_fallocate(fd, 0, size_bytes)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise


def write_zeros_directly(path: Path, size_bytes: int) -> bool:
    """Fill the file with zeros that pass the page cache by (O_DIRECT); they are on the medium after
    a `sync_file`. False when system, file system or size don't allow that, with nothing or a part
    of them written. Raises OSError.
    """
    if sys.platform != "linux":
        return False
    try:
        fd = os.open(path, os.O_WRONLY | os.O_DIRECT)
        try:
            with mmap.mmap(-1, _DIRECT_WRITE_BYTES) as pages, memoryview(pages) as zeros:
                offset = 0
                while offset < size_bytes:
                    offset += os.pwrite(fd, zeros[: size_bytes - offset], offset)
        finally:
            os.close(fd)
    except OSError as error:
        # open(2): where O_DIRECT, or a write of this size with it, is not known.
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
            return False
        raise
    return True


def forget_cached(fd: int) -> None:
    """Drop the file's clean pages from the page cache, so that the next read asks the medium.

    After a failed fsync Linux keeps the page and calls it clean although the medium never got it.
    """
    if sys.platform != "darwin":
        with contextlib.suppress(OSError):  # only advice; not every file system takes it
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def boot_time_ns() -> int:
    """Nanoseconds of BOOT_CLOCK."""
    return time.clock_gettime_ns(BOOT_CLOCK)


def read_ahead(fd: int) -> None:
    """Ask the system to start reading the whole file."""
    if sys.platform != "darwin":
        with contextlib.suppress(OSError):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED)


def write_vector(fd: int, buffers: Sequence[bytes], offset: int) -> int:
    """pwritev(2): the number of bytes written, which may be less than all. Raises OSError."""
    return os.pwritev(fd, buffers, offset)


def tcp_silence_us(sock: socket.socket) -> int | None:
    """For how many microseconds the kernel has received no data on this TCP connection.

    Unread data counts as received: that is the point. The kernel counts in milliseconds, in steps
    of its timer tick (1-10 ms). None where the system can't tell or `sock` is no TCP connection.
    """
    silence_ms = _tcp_info(sock, _U32, _TCP_LAST_DATA_RECV_OFFSET)
    return None if silence_ms is None else silence_ms * 1000


def tcp_received_bytes(sock: socket.socket) -> int | None:
    """How many bytes of the stream came in on this TCP connection, read or not, each counted once.
    None where the system can't tell or `sock` is no TCP connection.
    """
    return _tcp_info(sock, _U64, _TCP_BYTES_RECEIVED_OFFSET)


def _tcp_info(sock: socket.socket, field: struct.Struct, offset: int) -> int | None:
    if sys.platform != "linux":
        return None
    size = offset + field.size
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, size)
    except OSError:
        return None
    return int(field.unpack_from(info, offset)[0]) if len(info) >= size else None


def peer_credentials(sock: socket.socket) -> tuple[int | None, int, int]:
    """(process id, user id, group id) of who connected to this Unix socket, as the kernel saw it.

    The process id is None when the system can't tell. Raises OSError when `sock` is no connected
    Unix socket.
    """
    if sys.platform == "darwin":
        raw = sock.getsockopt(_MACOS_SOL_LOCAL, _MACOS_LOCAL_PEERCRED, 76)
        _, mac_uid, _, mac_gid = _XUCRED.unpack_from(raw)
        try:
            mac_pid = sock.getsockopt(_MACOS_SOL_LOCAL, _MACOS_LOCAL_PEERPID)
        except OSError:
            return None, mac_uid, mac_gid
        return mac_pid or None, mac_uid, mac_gid
    if sock.family != socket.AF_UNIX:
        raise OSError(errno.EOPNOTSUPP, "only a Unix socket knows who is at its other end")
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(raw)
    return pid or None, uid, gid


def peer_groups(sock: socket.socket) -> frozenset[int]:
    """The supplementary groups of who connected to this Unix socket, as the kernel saw them; empty
    where the system can't tell.
    """
    try:
        if sys.platform == "darwin":
            raw = sock.getsockopt(_MACOS_SOL_LOCAL, _MACOS_LOCAL_PEERCRED, 76)
            _, _, count, _ = _XUCRED.unpack_from(raw)
            first = _XUCRED.size - _GID.size
            return frozenset(group for (group,) in _GID.iter_unpack(raw[first:][: 4 * count]))
        raw = sock.getsockopt(socket.SOL_SOCKET, _LINUX_SO_PEERGROUPS, _GETSOCKOPT_BYTES)
    except OSError as error:
        # More of them than that.
        return _groups_of_user(sock) if error.errno == errno.ERANGE else frozenset()
    return frozenset(group for (group,) in _GID.iter_unpack(raw))


def _groups_of_user(sock: socket.socket) -> frozenset[int]:
    _, uid, gid = peer_credentials(sock)
    try:
        return frozenset(os.getgrouplist(pwd.getpwuid(uid).pw_name, gid))
    except KeyError:
        return frozenset()


def notice_dead_peer(sock: Any, silence_s: float) -> None:
    """Have the kernel end a TCP connection whose other end is gone without a word (tcp(7)): when
    what was sent stays unacknowledged for `silence_s` (Linux only), or when nothing is sent and
    keepalive probes stay unanswered for the longer of that and 15 s. Nothing waits to be sent
    together with more (TCP_NODELAY). `sock` is a socket or what an event loop shows of one.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_USER_TIMEOUT", int(silence_s * 1000)),
        ("TCP_KEEPIDLE", _KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", _KEEPALIVE_INTERVAL_S),
    ):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
