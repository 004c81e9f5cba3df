"""Files of a data directory that are missing, damaged, left over or not ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from raft_agent.storage.errors import StorageError
from raft_agent.storage.format import BLOCK_BYTES, segment_name
from raft_agent.storage.store import Store
from tests.unit.storage.support import flip, make_batch, make_log, names, opened, recovered_log


@pytest.mark.parametrize("write", ["log", "vote"])
def test_a_missing_identity_of_a_used_directory_is_refused(tmp_path: Path, write: str) -> None:
    with opened(tmp_path) as driver:
        if write == "log":
            driver.append(make_batch(1))
        else:
            driver.save_vote(1, 5, 77)
    (tmp_path / "identity").unlink()
    with pytest.raises(StorageError, match="identity file is missing"):
        Store.open(tmp_path)


def test_a_damaged_identity_is_refused(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    flip(tmp_path / "identity", 70)
    with pytest.raises(StorageError, match="identity"):
        Store.open(tmp_path)


def test_a_foreign_file_in_the_log_is_refused(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    (tmp_path / "log" / "notes.txt").write_text("hello")
    with pytest.raises(StorageError, match=r"notes\.txt"):
        Store.open(tmp_path)


@pytest.mark.parametrize("which", ["first", "middle", "last", "all", "directory"])
def test_a_missing_segment_is_refused(tmp_path: Path, which: str) -> None:
    with opened(tmp_path, segment_bytes=32 << 10) as driver:
        driver.append(*make_log([9_000] * 10))
    paths = sorted((tmp_path / "log").iterdir())
    assert len(paths) >= 3
    chosen = {"first": paths[:1], "middle": paths[1:2], "last": paths[-1:]}.get(which, paths)
    for path in chosen:
        path.unlink()
    if which == "directory":
        (tmp_path / "log").rmdir()
    for _ in range(2):
        with pytest.raises(StorageError, match="missing") as caught:
            Store.open(tmp_path)
    assert "raftctl join" in str(caught.value)


@pytest.mark.parametrize("damage", ["missing", "one copy", "both copies"])
def test_the_log_does_not_need_the_note_of_its_last_segment(tmp_path: Path, damage: str) -> None:
    log = make_log([9_000] * 10)
    with opened(tmp_path, segment_bytes=32 << 10) as driver:
        driver.append(*log)
    note = tmp_path / "last-segment"
    before = note.read_bytes()
    if damage == "missing":
        note.unlink()
    else:
        flip(note, 20)
    if damage == "both copies":
        flip(note, BLOCK_BYTES + 20)
    assert recovered_log(tmp_path) == tuple(log)
    assert note.read_bytes() == before


def test_a_segment_that_never_got_a_batch_is_removed(tmp_path: Path) -> None:
    with opened(tmp_path) as driver:
        driver.append(make_batch(1))
    unused = tmp_path / "log" / segment_name(2)
    unused.write_bytes(bytes(64 << 10))
    with opened(tmp_path) as driver:
        assert not unused.exists()
        driver.append(make_batch(2, payload=bytes(100_000)))
    assert recovered_log(tmp_path) == (make_batch(1), make_batch(2, payload=bytes(100_000)))


def test_what_is_found_is_synced_before_it_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed agent leaves bytes that only the page cache has."""
    with opened(tmp_path) as driver:
        driver.append(make_batch(1))
    synced: list[str] = []
    real = os.fsync

    def watched(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        real(fd)

    monkeypatch.setattr(os, "fsync", watched)
    Store.open(tmp_path).close()
    assert synced[:4] == [tmp_path.name, "snapshots", segment_name(1), "log"]


def test_what_was_prepared_and_not_used_is_removed(tmp_path: Path) -> None:
    with opened(tmp_path) as driver:
        driver.append(make_batch(1))
    (tmp_path / "log" / "next.tmp").write_bytes(make_batch(2).record)
    (tmp_path / "log" / "large.tmp").write_bytes(b"")
    assert recovered_log(tmp_path) == (make_batch(1),)
    assert names(tmp_path / "log") == [segment_name(1)]
