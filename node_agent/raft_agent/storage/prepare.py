"""Segments made in advance, so that no append waits for a file to be filled with zeros."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from raft_agent import platform
from raft_agent.storage.files import create_zeroed, shortage

PREPARED_NAME = "next.tmp"
LARGE_NAME = "large.tmp"
PROBE_NAME = "probe.tmp"
TEMPORARY_NAMES = frozenset((PREPARED_NAME, LARGE_NAME, PROBE_NAME))


class Prepared:
    """A file of zeros that is to become a segment: open, `path` still a temporary name."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self.path = path
        self.size_bytes = size_bytes
        self.fd = create_zeroed(path, size_bytes)


class Preparer:
    """Makes the next segment in a thread. Used by the writer thread only."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._thread: threading.Thread | None = None
        self._ready: Prepared | None = None
        self._error: OSError | None = None

    def request(self, size_bytes: int) -> None:
        """Start making a segment of that size, unless one is ready or being made."""
        if self._thread is None and self._ready is None:
            self._thread = threading.Thread(
                target=self._make, args=(size_bytes,), name="raft-prepare", daemon=True
            )
            self._thread.start()

    def take(self, needed_bytes: int, size_bytes: int) -> Prepared:
        """A segment of at least `needed_bytes`, and of `size_bytes` when none is ready.

        Waits for the one being made. The caller renames it before it asks for another one. Raises
        OSError; where there was too little of something it is tried once more, because there may be
        enough by now.
        """
        self._finish()
        ready, error = self._ready, self._error
        self._error = None
        if error is not None and not shortage(error):
            raise error
        if ready is None:
            return Prepared(self._directory / PREPARED_NAME, max(needed_bytes, size_bytes))
        if ready.size_bytes < needed_bytes:
            return Prepared(self._directory / LARGE_NAME, needed_bytes)
        self._ready = None
        return ready

    def close(self) -> None:
        """Wait for the thread and remove what was not used."""
        self._finish()
        if self._ready is not None:
            os.close(self._ready.fd)
            with contextlib.suppress(OSError):  # the next start removes it as well
                self._ready.path.unlink()
            self._ready = None

    def _make(self, size_bytes: int) -> None:
        try:
            self._ready = Prepared(self._directory / PREPARED_NAME, size_bytes)
        except OSError as error:
            self._error = error

    def _finish(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None


def has_room(directory: Path, size_bytes: int) -> bool:
    """Whether a segment of that size could be made now, quotas included."""
    stat = os.statvfs(directory)
    if stat.f_bavail * stat.f_frsize < size_bytes:
        return False
    probe = directory / PROBE_NAME
    try:
        fd = os.open(probe, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            platform.reserve(fd, size_bytes)
        finally:
            os.close(fd)
            probe.unlink()
    except OSError:
        return False
    return True
