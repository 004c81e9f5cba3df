"""A leader's snapshot comes piece by piece and is installed, or nothing of it stays."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import google_crc32c
import pytest

from raft_agent.consensus.types import InstallSnapshot, WriteSnapshot
from raft_agent.storage.errors import StorageError
from raft_agent.storage.snapshot_format import snapshot_name
from raft_agent.storage.snapshots import INCOMING_NAME, SnapshotStore
from tests.unit.storage.support import (
    CLUSTER,
    failing,
    names,
    of_version_2,
    receive,
    snapshot_blocks,
    snapshot_bytes,
    take_snapshot,
)


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
    said = (50, 1, len(data) + 1, google_crc32c.value(data))
    snapshots.write_chunk(WriteSnapshot(*said, 0, data))
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
    with pytest.raises(StorageError, match="its format is of version 2") as caught:
        snapshots.install(receive(snapshots, of_version_2(), 50))
    assert "Install a raft-agent that knows version 2" in str(caught.value)
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
