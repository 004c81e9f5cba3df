"""The snapshots in the data directory: written, received, sent, read back, the two newest kept.

Two, because the log is kept from the older one on: when the newest turns out to be damaged at a
start, the older one and the log lead to the same state.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec

from raft_agent.consensus.types import (
    Configuration,
    InstallSnapshot,
    SnapshotMeta,
    WriteSnapshot,
)
from raft_agent.storage.errors import START_ANEW, StorageError
from raft_agent.storage.files import make_directory, sync_directory
from raft_agent.storage.format import UnknownVersionError
from raft_agent.storage.snapshot_files import (
    DamagedSnapshotError,
    Incoming,
    NewFile,
    OpenFiles,
    read_blocks,
    verify,
)
from raft_agent.storage.snapshot_format import (
    SnapshotHeader,
    encode_block_prefix,
    encode_end,
    encode_header,
    parse_snapshot_name,
    snapshot_name,
)

KEPT = 2
TEMPORARY_SUFFIX = ".tmp"
INCOMING_NAME = f"incoming{TEMPORARY_SUFFIX}"


class SnapshotStore:
    """Any thread may call any method; all but `newest` and `older_index` may block on the disk."""

    def __init__(self, directory: Path, kept: tuple[SnapshotMeta, ...]) -> None:
        """Use `open_snapshots`. `kept`: the newest first."""
        self._directory = directory
        self._kept = kept  # replaced as a whole, so that reading it needs no lock
        self._doubted: set[int] = set()
        self._publishing = threading.Lock()
        self._receiving = threading.Lock()
        self._incoming: Incoming | None = None
        self._sending = OpenFiles()

    @property
    def newest(self) -> SnapshotMeta | None:
        """The newest durable snapshot."""
        return self._kept[0] if self._kept else None

    @property
    def older_index(self) -> int:
        """The index of the second newest, 0 when there is none: compact the log up to it."""
        return self._kept[1].index if len(self._kept) > 1 else 0

    def create(
        self, index: int, term: int, configuration_index: int, configuration: Configuration
    ) -> SnapshotFile:
        """Begin a snapshot of the state after the entry `index`. Raises OSError; FileExistsError
        while one of the same entry is being written.
        """
        header = SnapshotHeader(index, term, configuration_index, configuration)
        return SnapshotFile(self, self._directory, header)

    def read_chunk(self, index: int, offset: int, max_bytes: int) -> bytes:
        """At most `max_bytes` from byte `offset` of the snapshot of `index`; b"" when it is gone,
        or ends there.

        What is being read can be read on for a while after newer ones have replaced it. Raises
        OSError.
        """
        meta = self._find(index)
        path = None if meta is None else self._path(meta)
        return self._sending.read(index, path, offset, max_bytes)

    def write_chunk(self, effect: WriteSnapshot) -> int:
        """Put a piece into the file that is being received; the offset up to which that is there
        then. A piece that does not follow changes nothing.

        Raises OSError; what was received is given up then.
        """
        with self._receiving:
            if effect.offset == 0:
                self._give_up_incoming()
                self._incoming = Incoming(self._directory / INCOMING_NAME, effect)
            if self._incoming is None or not self._incoming.is_of(effect):
                return 0
            try:
                return self._incoming.write(effect.offset, effect.data)
            except OSError:
                self._give_up_incoming()
                raise

    def install(self, effect: InstallSnapshot, cluster_id: str = "") -> SnapshotMeta | None:
        """Make the received file the newest snapshot, durably.

        None, and nothing has changed, when it is not complete, its checksum is wrong, it is not
        what it was said to be, not of the cluster `cluster_id` (if that is known), or not newer
        than what is there. Raises OSError, and StorageError when this program can't read its
        format.
        """
        with self._receiving:
            incoming, self._incoming = self._incoming, None
        if incoming is None:
            return None
        try:
            meta = incoming.check(effect)
            if meta is None or cluster_id not in ("", meta.configuration.cluster_id):
                return None
            newest = self.newest
            if newest is not None and meta.index <= newest.index:
                return None
            return self._publish(incoming.file, meta)
        except UnknownVersionError as error:
            what = f"the leader's snapshot can't be read: {error}"
            raise StorageError(what, str(self._directory), advice=error.advice) from None
        finally:
            incoming.file.remove()

    def blocks(self, index: int) -> Iterator[bytes]:
        """The blocks of the snapshot of `index`, in order. Raises StorageError when it is not
        there, is damaged or can't be read.
        """
        meta = self._find(index)
        if meta is None:
            raise StorageError(f"there is no snapshot of index {index}", str(self._directory))
        return read_blocks(self._path(meta))

    def sound_files(self) -> list[tuple[int, str]]:
        """(index, path) of those that are kept and not known to be damaged, the newest first."""
        kept = self._kept
        return [(meta.index, str(self._path(meta))) for meta in kept if not self._is_doubted(meta)]

    def doubt(self, index: int) -> bool:
        """The snapshot of `index` can't be read as a whole: it goes as soon as there is another
        one. Whether that is news; not of one that is not kept any more."""
        with self._publishing:
            if index in self._doubted or self._find(index) is None:
                return False
            self._doubted.add(index)
            return True

    def _is_doubted(self, meta: SnapshotMeta) -> bool:
        return meta.index in self._doubted

    def close(self) -> None:
        """Close what is being sent, and give up what is being received."""
        self._sending.close()
        with self._receiving:
            self._give_up_incoming()

    def _find(self, index: int) -> SnapshotMeta | None:
        return next((meta for meta in self._kept if meta.index == index), None)

    def _path(self, meta: SnapshotMeta) -> Path:
        return self._directory / snapshot_name(meta.index, meta.term)

    def _give_up_incoming(self) -> None:
        if self._incoming is not None:
            self._incoming.file.remove()
            self._incoming = None

    def _give_up_overtaken(self, newest_index: int) -> None:
        """Nobody sends on what stands for no more than is here, so it would keep its room."""
        with self._receiving:
            if self._incoming is not None and self._incoming.index <= newest_index:
                self._give_up_incoming()

    def _publish(self, file: NewFile, meta: SnapshotMeta) -> SnapshotMeta:
        """Give the complete file its name, durably, then forget what is not kept any more. It takes
        the place of one of the same index, which may have gone bad.
        """
        with self._publishing:
            there = self._find(meta.index)
            path = self._path(meta)
            file.settle(path)
            try:
                sync_directory(self._directory)
            except OSError:
                if there is None:
                    with contextlib.suppress(OSError):  # at worst the next start finds it
                        path.unlink()
                raise
            if there is not None:
                self._sending.forget(meta.index)
            gone = {meta.index, *self._doubted}
            others = (kept for kept in self._kept if kept.index not in gone)
            self._doubted.clear()
            newest_first = sorted((meta, *others), key=lambda kept: kept.index, reverse=True)
            self._kept = tuple(newest_first[:KEPT])
            self._prune()
        self._give_up_overtaken(self._kept[0].index)
        return meta

    def _prune(self) -> None:
        """Remove the snapshots that are not kept, damaged ones among them. What can't be removed,
        or is back after a crash, is tried again the next time.
        """
        names = {snapshot_name(meta.index, meta.term) for meta in self._kept}
        with contextlib.suppress(OSError):
            for path in self._directory.iterdir():
                if parse_snapshot_name(path.name) is not None and path.name not in names:
                    path.unlink()
        self._sending.close_idle()


class SnapshotFile:
    """A snapshot that is being written, by one thread at a time; nobody sees it before `finish`.

    When a method raises OSError (a full disk, say) the file is given up and removed.
    """

    def __init__(self, store: SnapshotStore, directory: Path, header: SnapshotHeader) -> None:
        """Use `SnapshotStore.create`."""
        self._store = store
        self._header = header
        name = snapshot_name(header.index, header.term)
        self._file = NewFile(directory / f"{name}{TEMPORARY_SUFFIX}", os.O_EXCL)
        self._blocks = 0
        self._file.append(encode_header(header))

    def write_blocks(self, *payloads: bytes) -> None:
        """Append blocks of 1 to MAX_BLOCK_BYTES bytes each, with one write. Raises OSError, and
        ValueError before anything is written.
        """
        buffers: list[bytes] = []
        for number, payload in enumerate(payloads, self._blocks):
            buffers += (encode_block_prefix(number, payload), payload)
        self._file.append(*buffers)
        self._blocks += len(payloads)

    def finish(self) -> SnapshotMeta:
        """Make the snapshot durable, in the place of one of the same index if there is one; all but
        the two newest go. Raises OSError.
        """
        try:
            self._file.append(encode_end(self._blocks))
            meta = self._header.meta(self._file.size_bytes, self._file.checksum)
            return self._store._publish(self._file, meta)
        finally:
            self._file.remove()

    def abort(self) -> None:
        """Give it up. May be called at any time; after `finish` it does nothing."""
        self._file.remove()


class OpenedSnapshots(msgspec.Struct):
    """`intact`: the newest first. `damaged`: what is wrong with those that are newer than the last
    of these, or with all when there are none."""

    store: SnapshotStore
    intact: tuple[SnapshotMeta, ...]
    damaged: list[StorageError]


def open_snapshots(directory: Path) -> OpenedSnapshots:
    """Find the newest intact snapshots; each is read as a whole. What was never finished is
    removed. Raises OSError, and StorageError when one is of a format that is not known.
    """
    make_directory(directory, 0o700)
    # A killed agent may have left a name that is not on the medium; the log goes in favour of it.
    sync_directory(directory)
    names: list[str] = []
    for path in directory.iterdir():
        if path.name.endswith(TEMPORARY_SUFFIX):
            path.unlink()
        elif parse_snapshot_name(path.name) is not None:
            names.append(path.name)
    intact: list[SnapshotMeta] = []
    damaged: list[StorageError] = []
    for name in sorted(names, reverse=True):
        if len(intact) == KEPT:
            break
        try:
            meta = verify(directory / name)
        except DamagedSnapshotError as error:
            damaged.append(error)
            continue
        if snapshot_name(meta.index, meta.term) == name:
            intact.append(meta)
        else:
            what = f"damaged: it is the snapshot of index {meta.index} and term {meta.term}"
            damaged.append(DamagedSnapshotError(what, str(directory / name), advice=START_ANEW))
    kept = tuple(intact)
    return OpenedSnapshots(SnapshotStore(directory, kept), kept, damaged)
