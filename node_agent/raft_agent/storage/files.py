"""Small things done with files: whole writes, atomic replacement, files full of zeros."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from raft_agent import platform

_BUFFERS_PER_CALL = 1024  # IOV_MAX, see pwritev(2)
_ZEROS = bytes(1 << 20)


_DISK_FULL = "the disk is full"
_NO_MORE_FILES = "no more files can be opened"
_SHORTAGES = {
    errno.ENOSPC: _DISK_FULL,
    errno.EDQUOT: _DISK_FULL,
    errno.EMFILE: _NO_MORE_FILES,
    errno.ENFILE: _NO_MORE_FILES,
}
_REMEDIES = {
    _DISK_FULL: "Make room on this file system",
    _NO_MORE_FILES: "Let the agent open more files: LimitNOFILE= in its unit, or ulimit -n",
}


def shortage(error: BaseException | None) -> str:
    """What there is too little of, in words, when `error` or its cause says so: that passes, and no
    file is damaged. Empty for everything else."""
    for each in (error, error.__cause__ if error is not None else None):
        if isinstance(each, OSError) and each.errno in _SHORTAGES:
            return _SHORTAGES[each.errno]
    return ""


def remedy(error: BaseException, otherwise: str) -> str:
    """What people can do about what there is too little of, or `otherwise`."""
    return _REMEDIES.get(shortage(error), otherwise)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of calls that take a descriptor don't say which file it is: `path`."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def write_all(fd: int, buffers: Sequence[bytes], offset: int) -> int:
    """Write `buffers` back to back at `offset`; the offset behind them. Raises OSError."""
    for first in range(0, len(buffers), _BUFFERS_PER_CALL):
        chunk = buffers[first : first + _BUFFERS_PER_CALL]
        size = sum(map(len, chunk))
        written = platform.write_vector(fd, chunk, offset)
        if written < size:  # signals and nearly full disks; a second try names the reason
            rest = memoryview(b"".join(chunk))
            while written < size:
                more = os.pwrite(fd, rest[written:], offset + written)
                if not more:
                    raise OSError(errno.EIO, "pwrite wrote nothing")
                written += more
        offset += size
    return offset


def read_exactly(fd: int, size_bytes: int, offset: int) -> bytes:
    """`size_bytes` from `offset` on, fewer only at the end of the file. Raises OSError."""
    data = os.pread(fd, size_bytes, offset)
    if len(data) == size_bytes or not data:
        return data
    pieces = [data]
    missing = size_bytes - len(data)
    while missing:
        data = os.pread(fd, missing, offset + size_bytes - missing)
        if not data:
            break
        pieces.append(data)
        missing -= len(data)
    return b"".join(pieces)


def sync_directory(path: Path) -> None:
    """Make creations, renames and removals in this directory durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        platform.sync_file(fd)
    finally:
        os.close(fd)


def make_directory(path: Path, mode: int) -> None:
    """Create the directory, durably, when it is not there. Raises OSError."""
    try:
        path.mkdir(mode)
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    sync_directory(path.parent)


def replace_file(path: Path, data: bytes) -> None:
    """Give `path` the content `data` atomically and durably. Raises OSError.

    After a failure the old content or the new one is there.
    """
    new = path.with_name(f"{path.name}.tmp")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        write_all(fd, [data], 0)
        platform.sync_file(fd)
    except OSError:
        with contextlib.suppress(OSError):  # give its room back; the first error is the news
            new.unlink()
        raise
    finally:
        os.close(fd)
    new.replace(path)
    sync_directory(path.parent)


def create_zeroed(path: Path, size_bytes: int) -> int:
    """A new file of zeros, all of them on the medium: a descriptor to read and write it.

    Overwriting such a file changes no metadata, which makes each fdatasync two to three times as
    fast as one of a file that grows. Raises OSError, and leaves no file then.

    Past the page cache, because a copy there costs a follower a sixth of its processor time. Where
    that can't be, synced piece by piece: the log's own fdatasync, in another thread, waits behind
    what is in the disk's queue (16 MiB at once made one append in a thousand take 10 ms instead of
    1).
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        platform.reserve(fd, size_bytes)
        if not platform.write_zeros_directly(path, size_bytes):
            for offset in range(0, size_bytes, len(_ZEROS)):
                write_all(fd, [_ZEROS[: size_bytes - offset]], offset)
                platform.sync_data(fd)
        platform.sync_file(fd)
    except OSError:
        os.close(fd)
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    return fd
