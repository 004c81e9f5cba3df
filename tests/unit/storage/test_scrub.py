"""What went bad on the medium is found although nobody needs it."""

from __future__ import annotations

import errno
import os
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from raft_agent.storage.errors import StorageError
from raft_agent.storage.files import shortage
from raft_agent.storage.format import SEGMENT_HEADER_SIZE
from raft_agent.storage.snapshot_format import snapshot_name
from tests.unit.storage.support import Driver, flip, make_log, names, opened, take_snapshot


class Told:
    """What a scrubber has said, in the order of the calls."""

    def __init__(self) -> None:
        self.calls: queue.Queue[Callable[[], None]] = queue.Queue()
        self.log: list[StorageError] = []
        self.snapshots: list[tuple[int, str]] = []

    def next(self) -> None:
        self.calls.get(timeout=30)()


@contextmanager
def scrubbed(data_dir: Path) -> Iterator[tuple[Driver, Told]]:
    told = Told()
    with opened(data_dir) as driver:
        driver.append(*make_log([3_000, 10, 0, 700] * 60))
        take_snapshot(driver.store.snapshots, 3, 1)
        take_snapshot(driver.store.snapshots, 7, 1)
        driver.store.scrub(
            0.01,
            post=told.calls.put,
            on_log_damaged=told.log.append,
            on_snapshot_damaged=lambda index, what: told.snapshots.append((index, what)),
        )
        yield driver, told


def test_a_bit_that_turns_in_the_log_is_found(tmp_path: Path) -> None:
    with scrubbed(tmp_path) as (_, told):
        name = names(tmp_path / "log")[1]
        flip(tmp_path / "log" / name, SEGMENT_HEADER_SIZE + 5_000)
        told.next()
        (error,) = told.log
        assert error.path.endswith(name)
        assert "raftctl rebuild" in error.advice


def test_a_bit_that_turns_in_a_snapshot_is_told_once_and_the_file_goes_with_the_next(
    tmp_path: Path,
) -> None:
    with scrubbed(tmp_path) as (driver, told):
        snapshots = driver.store.snapshots
        flip(tmp_path / "snapshots" / snapshot_name(7, 1), 1_000)
        told.next()
        assert [index for index, _ in told.snapshots] == [7]
        assert not snapshots.doubt(7), "that is no news any more"
        take_snapshot(snapshots, 11, 1)
        assert names(tmp_path / "snapshots") == [snapshot_name(3, 1), snapshot_name(11, 1)]
        assert snapshots.older_index == 3
        flip(tmp_path / "log" / names(tmp_path / "log")[0], SEGMENT_HEADER_SIZE + 5_000)
        told.next()
        assert len(told.log) == 1
        assert len(told.snapshots) == 1


def test_what_can_not_be_opened_for_want_of_descriptors_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = threading.Semaphore(0)
    real = os.open

    def open_(path: object, *args: object, **kwargs: object) -> int:
        if threading.current_thread() is not threading.main_thread():
            refused.release()
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))
        return real(path, *args, **kwargs)  # type: ignore[arg-type]

    with scrubbed(tmp_path) as (driver, told):
        monkeypatch.setattr(os, "open", open_)
        for _ in range(20):  # of several rounds: each tries to open every snapshot and a segment
            assert refused.acquire(timeout=30)
        with ThreadPoolExecutor(1) as pool, pytest.raises(StorageError) as caught:
            pool.submit(driver.store.read, 1, 1).result()
        assert shortage(caught.value) == "no more files can be opened"
        assert "LimitNOFILE" in caught.value.advice
        monkeypatch.undo()
        flip(tmp_path / "log" / names(tmp_path / "log")[1], SEGMENT_HEADER_SIZE + 5_000)
        told.next()
        assert len(told.log) == 1
        assert told.snapshots == []


def test_it_ends_with_the_store(tmp_path: Path) -> None:
    with scrubbed(tmp_path) as (driver, told):
        thread = driver.store._scrubber
        assert thread is not None
    assert not thread._thread.is_alive()
    assert told.calls.empty()
