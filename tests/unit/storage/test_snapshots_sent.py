"""Snapshots are read piece by piece for a member that lacks the log."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from raft_agent.storage.snapshot_format import snapshot_name
from raft_agent.storage.snapshots import SnapshotStore
from tests.unit.storage.support import failing, names, receive, snapshot_bytes, take_snapshot


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


def test_a_piece_that_can_not_be_read_names_its_file(
    directory: Path, snapshots: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_snapshot(snapshots, 10)
    failing(monkeypatch, "pread", errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)) as caught:
        snapshots.read_chunk(10, 0, 500)
    assert caught.value.filename == str(directory / snapshot_name(10, 1))
