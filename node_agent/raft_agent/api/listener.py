"""The Unix socket's place in the file system: bound with no moment of wider rights, stale ones
cleaned, never taken from an agent that lives.
"""

from __future__ import annotations

import contextlib
import grp
import os
import socket
import stat
import tempfile
from pathlib import Path

_PROBE_TIMEOUT_S = 1.0
# connect(2) on a Unix socket fails at once when the backlog is full; a thousand clients may come at
# the same moment. The kernel caps it at net.core.somaxconn.
BACKLOG = 4096


class SocketUnavailableError(OSError):
    """The socket can't be made; the text says why and what to do."""


class UnixListener:
    """A listening socket that stands at `path`.

    `group`: mode 0660 for that group; without it 0600. Raises SocketUnavailableError.
    """

    def __init__(self, path: Path, group: str | None) -> None:
        self.path = path
        _make_way(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._bind(path, group)
            self.socket.listen(BACKLOG)
            self.socket.setblocking(False)
        except BaseException:
            self.socket.close()
            raise
        self._identity = _identity(path)
        self.group_id = None if group is None else _group_id(group)

    def _bind(self, path: Path, group: str | None) -> None:
        # Bound in a directory that only we may enter, given its mode and group there, and moved to
        # its place then: bind() itself would make it with whatever the umask leaves.
        try:
            private = Path(tempfile.mkdtemp(prefix=".", dir=path.parent))
        except OSError as error:
            raise SocketUnavailableError(
                f"can't make a socket in {path.parent}: {error.strerror}; check that the directory "
                "exists and that this user may write there, or set server.ipc_socket"
            ) from error
        temporary = private / "s"
        try:
            private.chmod(0o700)  # mkdtemp gives less under a strict umask
            self.socket.bind(str(temporary))
            if group is None:
                temporary.chmod(0o600)
            else:
                os.chown(temporary, -1, _group_id(group))
                temporary.chmod(0o660)
            temporary.replace(path)
        except OSError as error:
            if isinstance(error, SocketUnavailableError):
                raise
            raise SocketUnavailableError(
                f"can't make the socket {path}: {error.strerror or error}; "
                "set server.ipc_socket (a path has at most about 100 bytes) or server.ipc_group"
            ) from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            private.rmdir()

    def remove(self) -> None:
        """Take the socket's name away if it is still ours: a newer agent may have put its own."""
        if _identity(self.path) == self._identity:
            self.path.unlink(missing_ok=True)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _group_id(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise SocketUnavailableError(
            f'there is no group "{group}" for the socket; make it with: groupadd {group}'
        ) from None


def _make_way(path: Path) -> None:
    """Check that nobody answers at `path`; what a dead agent left there is replaced by bind."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise SocketUnavailableError(f"can't look at {path}: {error.strerror}") from error
    if not stat.S_ISSOCK(mode):
        raise SocketUnavailableError(f"{path} exists and is no socket; move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_TIMEOUT_S)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError as error:
            # A full backlog or a time-out: somebody listens. No permission: we can't tell.
            raise SocketUnavailableError(
                f"can't tell whether an agent answers at {path} ({error}); end it, or remove the "
                "file if none runs"
            ) from error
    raise SocketUnavailableError(
        f"another agent answers at {path}; end that one, or set another server.ipc_socket"
    )
