"""The snapshots in a data directory: taken, received, sent, found again."""

from __future__ import annotations

import errno
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import pytest

from raft_agent.consensus.types import InstallSnapshot, SnapshotMeta, WriteSnapshot
from raft_agent.storage.errors import StorageError
from raft_agent.storage.snapshot_format import MAX_BLOCK_BYTES, snapshot_name
from raft_agent.storage.snapshots import INCOMING_NAME, SnapshotStore, open_snapshots
from tests.unit.storage.support import (
    CLUSTER,
    configuration,
    receive,
    snapshot_blocks,
    snapshot_bytes,
    take_snapshot,
)

MIB = 1 << 20


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "snapshots"


@pytest.fixture
def snapshots(directory: Path) -> SnapshotStore:
    return open_snapshots(directory).store


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def whole(snapshots: SnapshotStore, index: int, max_bytes: int = 1_000) -> bytes:
    data = b""
    while piece := snapshots.read_chunk(index, len(data), max_bytes):
        assert len(piece) <= max_bytes
        data += piece
    return data


def failing(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> Callable[[], None]:
    """From now on this call of `os` fails; what is returned puts it right."""
    real = getattr(os, name)

    def call(*_args: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, name, call)
    return lambda: monkeypatch.setattr(os, name, real)


# --- Taking


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
    file.write_block(b"a block")
    assert snapshots.newest is None
    assert snapshots.read_chunk(7, 0, 100) == b""
    assert open_snapshots(directory).intact == ()
    assert names(directory) == []  # a start removes what was never finished


def test_an_abandoned_snapshot_leaves_nothing(directory: Path, snapshots: SnapshotStore) -> None:
    file = snapshots.create(7, 3, 1, configuration())
    file.write_block(b"a block")
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
    file.write_block(b"in other blocks")
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
        file.write_block(payload)
    file.write_block(b"good")
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
        file.write_block(bytes(MIB // 8))
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
        file.write_block(b"a block")
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
    writing = threading.Thread(target=file.write_block, args=(b"a block",))
    writing.start()
    entered.wait(60)
    aborting = threading.Thread(target=abort)
    aborting.start()
    assert not aborted.wait(0.05)
    proceed.set()
    writing.join(60)
    aborting.join(60)
    assert aborted.is_set()


# --- Sending


def test_a_snapshot_that_is_not_there_is_sent_as_nothing(snapshots: SnapshotStore) -> None:
    take_snapshot(snapshots, 10)
    assert snapshots.read_chunk(11, 0, 100) == b""


def test_a_transfer_goes_on_when_the_snapshot_is_not_kept_any_more(
    snapshots: SnapshotStore,
) -> None:
    take_snapshot(snapshots, 10)
    data = snapshots.read_chunk(10, 0, 500)
    for index in range(20, 80, 10):
        take_snapshot(snapshots, index)
        data += snapshots.read_chunk(10, len(data), 500)
    assert data == snapshot_bytes(10)[: len(data)]
    assert len(data) == 7 * 500


def test_a_transfer_that_rests_over_two_snapshots_lets_the_file_go(
    snapshots: SnapshotStore,
) -> None:
    take_snapshot(snapshots, 10)
    assert snapshots.read_chunk(10, 0, 500)
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    for index in (20, 30, 40):
        take_snapshot(snapshots, index)
    assert len(list(Path("/proc/self/fd").iterdir())) == open_files - 1
    assert snapshots.read_chunk(10, 500, 500) == b""


def test_closing_closes_what_is_sent_and_received(
    directory: Path, snapshots: SnapshotStore
) -> None:
    take_snapshot(snapshots, 10)
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert snapshots.read_chunk(10, 0, 500)
    receive(snapshots, snapshot_bytes(20)[:500], 20)
    snapshots.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert names(directory) == [snapshot_name(10, 1)]


# --- Receiving


def test_a_received_snapshot_is_installed_and_kept(
    directory: Path, snapshots: SnapshotStore
) -> None:
    take_snapshot(snapshots, 10)
    data = snapshot_bytes(50, 4)
    meta = snapshots.install(receive(snapshots, data, 50, 4), CLUSTER)
    assert meta == snapshots.newest
    assert meta is not None
    assert (meta.index, meta.term, meta.size_bytes) == (50, 4, len(data))
    assert list(snapshots.blocks(50)) == snapshot_blocks(50)
    assert names(directory) == [snapshot_name(10, 1), snapshot_name(50, 4)]


def test_a_transfer_may_begin_anew(snapshots: SnapshotStore) -> None:
    receive(snapshots, snapshot_bytes(40)[:2_500], 40)
    data = snapshot_bytes(50)
    receive(snapshots, data[:3_000], 50)
    assert snapshots.install(receive(snapshots, data, 50)) is not None


def test_a_piece_that_does_not_follow_changes_nothing(snapshots: SnapshotStore) -> None:
    data = snapshot_bytes(50)
    effect = receive(snapshots, data, 50)
    said = (effect.size_bytes, effect.checksum)
    size = len(data)
    for index, offset, there in ((50, 100, size), (50, size + 5, size), (51, 100, 0)):
        assert snapshots.write_chunk(WriteSnapshot(index, 1, *said, offset, b"no")) == there
    assert snapshots.write_chunk(WriteSnapshot(50, 1, *said, size, b"beyond")) == size
    assert snapshots.install(effect) is not None


def test_a_piece_before_the_first_one_is_not_taken(snapshots: SnapshotStore) -> None:
    assert snapshots.write_chunk(WriteSnapshot(50, 1, 1_000, 1, 500, b"x")) == 0


def test_what_was_received_goes_when_an_own_snapshot_holds_as_much(
    directory: Path, snapshots: SnapshotStore
) -> None:
    """The log has come in the meantime; a part of a large file would stay until the next start."""
    for index in (50, 100, 51):
        receive(snapshots, snapshot_bytes(index)[:2_000], index)
        assert INCOMING_NAME in names(directory)
        take_snapshot(snapshots, 100 if index > 50 else 49)
        assert (INCOMING_NAME in names(directory)) == (index == 50)


def altered(effect: InstallSnapshot, **fields: int) -> InstallSnapshot:
    values = {name: getattr(effect, name) for name in effect.__struct_fields__}
    return InstallSnapshot(**{**values, **fields})


@pytest.mark.parametrize("fields", [{"checksum": 1}, {"size_bytes": 5}, {"term": 2}, {"index": 51}])
def test_what_is_not_the_snapshot_that_was_announced_is_not_installed(
    directory: Path, snapshots: SnapshotStore, fields: dict[str, int]
) -> None:
    effect = receive(snapshots, snapshot_bytes(50), 50)
    assert snapshots.install(altered(effect, **fields)) is None
    assert names(directory) == []


def test_a_wrong_checksum_is_noticed(directory: Path, snapshots: SnapshotStore) -> None:
    data = snapshot_bytes(50)
    said = (50, 1, len(data), 12345)
    snapshots.write_chunk(WriteSnapshot(*said, 0, data))
    assert snapshots.install(InstallSnapshot(*said)) is None
    assert names(directory) == []


def test_a_snapshot_that_is_not_complete_is_not_installed(snapshots: SnapshotStore) -> None:
    data = snapshot_bytes(50)
    said = (50, 1, len(data), 12345)
    snapshots.write_chunk(WriteSnapshot(*said, 0, data[:-1]))
    assert snapshots.install(InstallSnapshot(*said)) is None


def test_nothing_received_is_nothing_to_install(snapshots: SnapshotStore) -> None:
    assert snapshots.install(InstallSnapshot(50, 1, 100, 1)) is None


@pytest.mark.parametrize(
    "data",
    [snapshot_bytes(49), snapshot_bytes(50, 2), b"no snapshot at all", b""],
    ids=["index", "term", "other", "empty"],
)
def test_a_file_that_holds_something_else_is_not_installed(
    directory: Path, snapshots: SnapshotStore, data: bytes
) -> None:
    assert snapshots.install(receive(snapshots, data, 50)) is None
    assert names(directory) == []


def test_another_clusters_snapshot_is_not_installed(
    directory: Path, snapshots: SnapshotStore
) -> None:
    data = snapshot_bytes(50, cluster_id="another")
    assert snapshots.install(receive(snapshots, data, 50), CLUSTER) is None
    assert names(directory) == []


def test_an_older_snapshot_is_not_installed_over_a_newer_one(snapshots: SnapshotStore) -> None:
    newest = take_snapshot(snapshots, 60)
    assert snapshots.install(receive(snapshots, snapshot_bytes(50), 50)) is None
    assert snapshots.newest == newest


def test_a_leaders_newer_format_is_refused_in_words(
    directory: Path, snapshots: SnapshotStore
) -> None:
    with pytest.raises(StorageError, match="version 2 is not known") as caught:
        snapshots.install(receive(snapshots, of_version_2(), 50))
    assert "version here that the leader has" in str(caught.value)
    assert names(directory) == []


def test_a_full_disk_gives_up_what_was_received(
    directory: Path, snapshots: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = snapshot_bytes(50)
    effect = receive(snapshots, data[:2_000], 50)
    mend = failing(monkeypatch, "pwritev", errno.ENOSPC)
    chunk = WriteSnapshot(50, 1, 2_000, effect.checksum, 2_000, b"")
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as caught:
        snapshots.write_chunk(chunk)
    mend()
    assert caught.value.filename == str(directory / INCOMING_NAME)
    assert names(directory) == []
    assert snapshots.install(receive(snapshots, data, 50)) is not None


# --- At start


def of_version_2() -> bytes:
    head = b"RAFTSNAP" + struct.pack("<HH", 2, 0)
    return head + struct.pack("<I", google_crc32c.value(head)) + b"more"


def put(directory: Path, index: int, *, damage: int = -1) -> Path:
    path = directory / snapshot_name(index, 1)
    path.write_bytes(snapshot_bytes(index))
    if damage >= 0:
        flip(path, damage)
    return path


def indexes(found: tuple[SnapshotMeta, ...]) -> list[int]:
    return [meta.index for meta in found]


def test_the_newest_two_intact_ones_are_found(directory: Path, snapshots: SnapshotStore) -> None:
    del snapshots
    for index in (10, 20, 30):
        put(directory, index)
    found = open_snapshots(directory)
    assert indexes(found.intact) == [30, 20]
    assert found.store.older_index == 20


def test_a_damaged_newest_one_is_told_and_passed_over(
    directory: Path, snapshots: SnapshotStore
) -> None:
    del snapshots
    for index in (10, 20):
        put(directory, index)
    bad = put(directory, 30, damage=-1 + len(snapshot_bytes(30)) // 2)
    found = open_snapshots(directory)
    assert indexes(found.intact) == [20, 10]
    [error] = found.damaged
    assert error.path == str(bad)
    assert error.offset > 0
    assert "damaged" in error.what


def test_a_damaged_snapshot_goes_with_the_next_one(
    directory: Path, snapshots: SnapshotStore
) -> None:
    del snapshots
    put(directory, 10)
    put(directory, 20, damage=100)
    take_snapshot(open_snapshots(directory).store, 30)
    assert names(directory) == [snapshot_name(10, 1), snapshot_name(30, 1)]


def test_the_place_of_a_damaged_snapshot_can_be_taken(
    directory: Path, snapshots: SnapshotStore
) -> None:
    del snapshots
    put(directory, 20, damage=100)
    store = open_snapshots(directory).store
    take_snapshot(store, 20)
    assert list(store.blocks(20)) == snapshot_blocks(20)


def test_a_renamed_snapshot_is_damage(directory: Path, snapshots: SnapshotStore) -> None:
    del snapshots
    put(directory, 10).rename(directory / snapshot_name(11, 1))
    found = open_snapshots(directory)
    assert found.intact == ()
    assert "snapshot of index 10" in found.damaged[0].what


def test_a_snapshot_that_can_not_be_read_is_damage(
    directory: Path, snapshots: SnapshotStore
) -> None:
    del snapshots
    (directory / snapshot_name(10, 1)).mkdir()
    [error] = open_snapshots(directory).damaged
    assert "can't be read" in error.what
    assert "may read it" in error.advice


def test_a_format_from_the_future_is_refused_in_words(
    directory: Path, snapshots: SnapshotStore
) -> None:
    del snapshots
    put(directory, 10)
    (directory / snapshot_name(20, 1)).write_bytes(of_version_2())
    with pytest.raises(StorageError, match="version 2 is not known") as caught:
        open_snapshots(directory)
    assert caught.value.path.endswith(snapshot_name(20, 1))
    assert "Start the version that wrote it" in caught.value.advice


def test_foreign_files_are_left_alone(directory: Path, snapshots: SnapshotStore) -> None:
    del snapshots
    (directory / "notes.txt").write_text("mine")
    take_snapshot(open_snapshots(directory).store, 10)
    assert names(directory) == [snapshot_name(10, 1), "notes.txt"]


def test_damage_that_comes_later_is_noticed_while_restoring(
    directory: Path, snapshots: SnapshotStore
) -> None:
    take_snapshot(snapshots, 10)
    path = directory / snapshot_name(10, 1)
    flip(path, len(snapshot_bytes(10)) - 40)
    with pytest.raises(StorageError, match="block 2") as caught:
        list(snapshots.blocks(10))
    assert caught.value.path == str(path)


def test_blocks_of_a_snapshot_that_is_not_there_are_refused(snapshots: SnapshotStore) -> None:
    with pytest.raises(StorageError, match="no snapshot of index 5"):
        snapshots.blocks(5)


def test_a_piece_that_can_not_be_read_names_its_file(
    directory: Path, snapshots: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_snapshot(snapshots, 10)
    failing(monkeypatch, "pread", errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)) as caught:
        snapshots.read_chunk(10, 0, 500)
    assert caught.value.filename == str(directory / snapshot_name(10, 1))
