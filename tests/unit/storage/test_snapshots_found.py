"""The snapshots that a start finds in a data directory, and what it does about damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from raft_agent.consensus.types import SnapshotMeta
from raft_agent.storage.errors import StorageError
from raft_agent.storage.snapshot_format import snapshot_name
from raft_agent.storage.snapshots import SnapshotStore, open_snapshots
from tests.unit.storage.support import (
    flip,
    names,
    of_version_2,
    snapshot_blocks,
    snapshot_bytes,
    take_snapshot,
)


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
    with pytest.raises(StorageError, match="its format is of version 2") as caught:
        open_snapshots(directory)
    assert caught.value.path.endswith(snapshot_name(20, 1))
    assert "Install a raft-agent that knows version 2" in caught.value.advice


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
