"""The files that certificates and keys come from."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec

from raft_agent.tls.errors import TlsError

# Nobody has so many certificates; a path that leads elsewhere must not fill the memory.
_MAX_BYTES = 4 << 20


class TlsFiles(msgspec.Struct, frozen=True):
    """Paths. `ca`: one certificate of an authority or several; `cert`: one's own certificate, and
    those between it and an authority if there are any; `key`: the key of the first one; `crl`: the
    lists of revoked certificates, "" for none.
    """

    ca: str
    cert: str
    key: str
    crl: str = ""

    def signature(self) -> tuple[tuple[int, ...], ...]:
        """Changes whenever one of the files does. A file that is not there counts as well."""
        return tuple(_signature(path) for path in (self.ca, self.cert, self.key, self.crl) if path)


class Contents(msgspec.Struct, frozen=True):
    """What stands in the files of one `TlsFiles`."""

    ca: bytes
    cert: bytes
    key: bytes
    crl: bytes


def read_files(files: TlsFiles) -> Contents:
    """Raises TlsError when one can't be read, or when others could read the key."""
    return Contents(
        ca=read_file(files.ca),
        cert=read_file(files.cert),
        key=read_file(files.key, private=True),
        crl=read_file(files.crl) if files.crl else b"",
    )


def read_file(path: str, *, private: bool = False) -> bytes:
    """`private`: only its owner, who must be this user or root, may have a right to the file; a
    group may read what belongs to root. Raises TlsError.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise TlsError("is no file that can be read twice, but a pipe or a device", path)
            if private:
                _check_privacy(path, found)
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise TlsError(f"can't be read: {error.strerror}", path) from error
    if len(data) > _MAX_BYTES:
        raise TlsError(f"is over {_MAX_BYTES} bytes: that can't be certificates", path)
    return data


def _without_waiting(path: str, flags: int) -> int:
    # open(2) of a pipe waits for somebody who writes, for ever.
    return os.open(path, flags | os.O_NONBLOCK)


def _check_privacy(path: str, found: os.stat_result) -> None:
    if found.st_uid not in (os.geteuid(), 0):
        raise TlsError(
            f"the key belongs to uid {found.st_uid}, who could put another one there: "
            f"chown {os.geteuid()} {path}",
            path,
        )
    # As with PostgreSQL's: a key that root hands out to a group is meant for it.
    forbidden = 0o077 if found.st_uid else 0o027
    if found.st_mode & forbidden:
        raise TlsError(
            f"the key has the mode {stat.S_IMODE(found.st_mode):04o}, so others can get at it: "
            f"chmod 600 {path}",
            path,
        )


def _signature(path: str) -> tuple[int, ...]:
    try:
        found = Path(path).stat()
    except OSError:
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
