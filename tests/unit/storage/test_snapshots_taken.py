"""Snapshots of one's own state are written, kept and replaced."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from raft_agent.storage.snapshot_format import MAX_BLOCK_BYTES, snapshot_name
from raft_agent.storage.snapshots import SnapshotStore, open_snapshots
from tests.unit.storage.support import (
    configuration,
    failing,
    names,
    snapshot_blocks,
    snapshot_bytes,
    take_snapshot,
)

MIB = 1 << 20


def whole(snapshots: SnapshotStore, index: int, max_bytes: int = 1_000) -> bytes:
    data = b""
    while piece := snapshots.read_chunk(index, len(data), max_bytes):
        assert len(piece) <= max_bytes
        data += piece
    return data


def test_a_finished_snapshot_is_the_newest_and_can_be_read_back(
    directory: Path, snapshots: SnapshotStore
) -> None:
    assert snapshots.newest is None
    meta = take_snapshot(snapshots, 7, 3)
    assert snapshots.newest == meta
    assert (meta.index, meta.term, meta.configuration) == (7, 3, configuration())
    assert list(snapshots.blocks(7)) == snapshot_blocks(7)
    assert whole(snapshots, 7) == snapshot_bytes(7, 3)
    found = open_snapshots(directory)
    assert found.intact == (meta,)
    assert found.damaged == []


def test_nothing_is_there_before_it_is_finished(directory: Path, snapshots: SnapshotStore) -> None:
    file = snapshots.create(7, 3, 1, configuration())
    file.write_blocks(b"a block")
    assert snapshots.newest is None
    assert snapshots.read_chunk(7, 0, 100) == b""
    assert open_snapshots(directory).intact == ()
    assert names(directory) == []  # a start removes what was never finished


def test_an_abandoned_snapshot_leaves_nothing(directory: Path, snapshots: SnapshotStore) -> None:
    file = snapshots.create(7, 3, 1, configuration())
    file.write_blocks(b"a block")
    file.abort()
    file.abort()
    assert names(directory) == []
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        file.finish()
    assert snapshots.newest is None


def test_to_abandon_it_after_the_end_changes_nothing(snapshots: SnapshotStore) -> None:
    file = snapshots.create(7, 3, 1, configuration())
    meta = file.finish()
    file.abort()
    assert snapshots.newest == meta
    assert list(snapshots.blocks(7)) == []


def test_two_of_one_entry_are_not_written_at_once(snapshots: SnapshotStore) -> None:
    file = snapshots.create(7, 3, 1, configuration())
    with pytest.raises(FileExistsError):
        snapshots.create(7, 3, 1, configuration())
    file.finish()


def test_a_second_one_of_the_same_entry_replaces_the_first(
    directory: Path, snapshots: SnapshotStore
) -> None:
    """The first may have gone bad, and may be open because it is being sent."""
    first = take_snapshot(snapshots, 7)
    assert snapshots.read_chunk(7, 0, 10)
    file = snapshots.create(7, 1, 1, configuration())
    file.write_blocks(b"in other blocks")
    second = file.finish()
    assert second.checksum != first.checksum
    assert snapshots.newest == second
    assert list(snapshots.blocks(7)) == [b"in other blocks"]
    assert snapshots.read_chunk(7, 0, 1 << 20) == (directory / snapshot_name(7, 1)).read_bytes()
    assert names(directory) == [snapshot_name(7, 1)]


@pytest.mark.parametrize("payload", [b"", bytes(MAX_BLOCK_BYTES + 1)])
def test_a_block_that_can_not_be_is_refused_and_the_file_goes_on(
    snapshots: SnapshotStore, payload: bytes
) -> None:
    file = snapshots.create(7, 3, 1, configuration())
    with pytest.raises(ValueError, match="block of"):
        file.write_blocks(payload)
    file.write_blocks(b"good")
    file.finish()
    assert list(snapshots.blocks(7)) == [b"good"]


def test_the_two_newest_are_kept(directory: Path, snapshots: SnapshotStore) -> None:
    assert snapshots.older_index == 0
    take_snapshot(snapshots, 10)
    assert snapshots.older_index == 0
    take_snapshot(snapshots, 20)
    assert snapshots.older_index == 10
    take_snapshot(snapshots, 30, 2)
    assert snapshots.older_index == 20
    assert names(directory) == [snapshot_name(20, 1), snapshot_name(30, 2)]


def test_one_that_is_overtaken_while_it_is_written_is_not_the_newest(
    snapshots: SnapshotStore,
) -> None:
    slow = snapshots.create(10, 1, 1, configuration())
    take_snapshot(snapshots, 20)
    slow.finish()
    assert snapshots.newest is not None
    assert (snapshots.newest.index, snapshots.older_index) == (20, 10)


def test_a_large_snapshot_is_synced_piece_by_piece(
    snapshots: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = os.fdatasync

    def noted(fd: int) -> None:
        sizes.append(os.fstat(fd).st_size)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", noted)
    file = snapshots.create(7, 3, 1, configuration())
    for _ in range(40):
        file.write_blocks(bytes(MIB // 8))
    file.finish()
    steps = [after - before for before, after in zip([0, *sizes], sizes, strict=False)]
    assert len(steps) >= 4
    assert max(steps) <= MIB + MIB // 4


@pytest.mark.parametrize("call", ["pwritev", "fsync"])
def test_a_full_disk_gives_the_snapshot_up_and_the_next_one_may_do(
    directory: Path, snapshots: SnapshotStore, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    take_snapshot(snapshots, 10)
    file = snapshots.create(20, 1, 1, configuration())
    mend = failing(monkeypatch, call, errno.ENOSPC)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as caught:  # noqa: PT012 - either may fail
        file.write_blocks(b"a block")
        file.finish()
    assert Path(caught.value.filename).parent == directory
    assert names(directory) == [snapshot_name(10, 1)]
    mend()
    assert snapshots.older_index == 0
    take_snapshot(snapshots, 20)
    assert snapshots.older_index == 10


def test_a_name_that_may_not_be_durable_is_taken_back(
    directory: Path, snapshots: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = snapshots.create(20, 1, 1, configuration())
    real = os.fsync

    def only_files(fd: int) -> None:
        if Path(f"/proc/self/fd/{fd}").readlink().is_dir():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    monkeypatch.setattr(os, "fsync", only_files)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        file.finish()
    assert names(directory) == []
    assert snapshots.newest is None


def test_to_abandon_a_snapshot_waits_for_the_write_that_is_under_way(
    snapshots: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A descriptor must not be closed under a write: its number could be the log's next."""
    file = snapshots.create(7, 3, 1, configuration())
    entered, proceed, aborted = threading.Event(), threading.Event(), threading.Event()
    real = os.pwritev

    def held_back(fd: int, buffers: list[bytes], offset: int) -> int:
        entered.set()
        proceed.wait(60)
        return real(fd, buffers, offset)

    def abort() -> None:
        file.abort()
        aborted.set()

    monkeypatch.setattr(os, "pwritev", held_back)
    writing = threading.Thread(target=file.write_blocks, args=(b"a block",))
    writing.start()
    entered.wait(60)
    aborting = threading.Thread(target=abort)
    aborting.start()
    assert not aborted.wait(0.05)
    proceed.set()
    writing.join(60)
    aborting.join(60)
    assert aborted.is_set()
