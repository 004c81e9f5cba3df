"""The open files behind the snapshots: one that grows, one that is received, those being sent."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import google_crc32c

from raft_agent import platform
from raft_agent.consensus.types import InstallSnapshot, SnapshotMeta, WriteSnapshot
from raft_agent.storage.errors import START_ANEW, StorageError
from raft_agent.storage.files import naming, read_exactly, write_all
from raft_agent.storage.format import UnknownVersionError
from raft_agent.storage.snapshot_format import (
    SnapshotDamageError,
    SnapshotHeader,
    SnapshotReader,
)

_BUFFER_BYTES = 1 << 20
# As in `create_zeroed`: the log's own fdatasync waits behind what is in the disk's queue.
_SYNC_EVERY_BYTES = 1 << 20


class DamagedSnapshotError(StorageError):
    """A snapshot that can't be used; another one may do."""


class NewFile:
    """A file that grows under a temporary name. After an OSError it is removed.

    Another thread may remove it while it is written: nothing must be written then to a descriptor
    that is closed, and may be the log's by now.
    """

    def __init__(self, path: Path, flags: int) -> None:
        self.size_bytes = 0
        self.checksum = 0
        self._path = path
        self._synced_bytes = 0
        self._lock = threading.RLock()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)

    def append(self, *buffers: bytes) -> None:
        """Write behind what is there; synced piece by piece."""
        with self._lock, naming(self._path):
            try:
                self.size_bytes = write_all(self._fd, buffers, self.size_bytes)
                for data in buffers:
                    self.checksum = google_crc32c.extend(self.checksum, data)
                if self.size_bytes - self._synced_bytes >= _SYNC_EVERY_BYTES:
                    platform.sync_data(self._fd)
                    self._synced_bytes = self.size_bytes
            except OSError:
                self.remove()
                raise

    def read_header(self) -> SnapshotHeader:
        """Raises SnapshotDamageError, UnknownVersionError and OSError."""
        offset = 0

        def read(size_bytes: int) -> bytes:
            nonlocal offset
            data = read_exactly(self._fd, size_bytes, offset)
            offset += len(data)
            return data

        with naming(self._path):
            return SnapshotReader(read).header

    def settle(self, path: Path) -> None:
        """Make the content durable, then give it the name `path`, which is not durable yet."""
        with self._lock, naming(self._path):
            try:
                platform.sync_file(self._fd)
                self._path.replace(path)
            except OSError:
                self.remove()
                raise
            self._close()

    def remove(self) -> None:
        """Close and remove it, unless it has got its name. May be called again."""
        with self._lock:
            if self._fd < 0:
                return
            self._close()
            with contextlib.suppress(OSError):  # the next start removes it as well
                self._path.unlink()

    def _close(self) -> None:
        os.close(self._fd)
        self._fd = -1


class Incoming:
    """A snapshot that is being received: it is `effect`'s, from its beginning on."""

    def __init__(self, path: Path, effect: WriteSnapshot) -> None:
        self.index = effect.index
        self.file = NewFile(path, os.O_TRUNC)
        self._key = _key(effect)

    def is_of(self, effect: WriteSnapshot | InstallSnapshot) -> bool:
        return self._key == _key(effect)

    def write(self, offset: int, data: bytes) -> int:
        """The offset up to which the file is there, with `data` if that follows. Raises OSError."""
        size_bytes = self._key[2]
        if offset == self.file.size_bytes and offset + len(data) <= size_bytes:
            self.file.append(data)
        return self.file.size_bytes

    def check(self, effect: InstallSnapshot) -> SnapshotMeta | None:
        """What it holds, when it is all that `effect` says. Raises UnknownVersionError, OSError."""
        file = self.file
        found = (effect.index, effect.term, file.size_bytes, file.checksum)
        if self._key != _key(effect) or self._key != found:
            return None
        try:
            header = file.read_header()
        except SnapshotDamageError:
            return None
        meta = header.meta(file.size_bytes, file.checksum)
        return meta if self._key == _key(meta) else None


class OpenFiles:
    """The snapshots that are being sent, by index.

    They stay open, so that a transfer can go on when the file has no name any more: until it was
    not read between two calls of `close_idle`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[int, tuple[int, Path]] = {}  # descriptors, and where they were opened
        self._read_since: set[int] = set()

    def read(self, index: int, path: Path | None, offset: int, max_bytes: int) -> bytes:
        """A piece of the snapshot of `index`; `path` is where it is, None when it is not kept any
        more. b"" when it is neither there nor open. Raises OSError.
        """
        with self._lock:
            if index not in self._files and path is not None:
                with contextlib.suppress(FileNotFoundError):
                    self._files[index] = os.open(path, os.O_RDONLY), path
            if index not in self._files:
                return b""
            self._read_since.add(index)
            fd, path = self._files[index]
            with naming(path):
                return read_exactly(fd, max_bytes, offset)

    def forget(self, index: int) -> None:
        """Another file has taken the place of this snapshot."""
        with self._lock:
            fd, _ = self._files.pop(index, (-1, None))
            if fd >= 0:
                os.close(fd)

    def close_idle(self) -> None:
        """Close those that were not read since the last call."""
        self._close(keep=True)

    def close(self) -> None:
        """Close all."""
        self._close(keep=False)

    def _close(self, *, keep: bool) -> None:
        with self._lock:
            for index in list(self._files):
                if not keep or index not in self._read_since:
                    os.close(self._files.pop(index)[0])
            self._read_since.clear()


def verify(path: Path) -> SnapshotMeta:
    """Read the whole file and check all of it. Raises StorageError."""
    with _reading(path) as reader:
        for _ in reader.blocks():
            pass
        return reader.meta()


def read_blocks(path: Path) -> Iterator[bytes]:
    """The payloads of the file's blocks, each checked. Raises StorageError."""
    with _reading(path) as reader:
        yield from reader.blocks()


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[SnapshotReader]:
    try:
        with path.open("rb", buffering=_BUFFER_BYTES) as file:
            platform.read_ahead(file.fileno())
            yield SnapshotReader(file.read)
    except SnapshotDamageError as error:
        raise DamagedSnapshotError(
            f"damaged: {error}", str(path), error.offset, START_ANEW
        ) from None
    except UnknownVersionError as error:
        raise StorageError(str(error), str(path), advice=error.advice) from None
    except OSError as error:
        what = f"can't be read: {error.strerror}"
        advice = "Check that the agent's user may read it, and the disk"
        raise DamagedSnapshotError(what, str(path), advice=advice) from error


def _key(said: WriteSnapshot | InstallSnapshot | SnapshotMeta) -> tuple[int, int, int, int]:
    return said.index, said.term, said.size_bytes, said.checksum
