"""What went bad on the medium is found although nobody needs it."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from raft_agent.storage.errors import StorageError
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


def test_it_ends_with_the_store(tmp_path: Path) -> None:
    with scrubbed(tmp_path) as (driver, told):
        thread = driver.store._scrubber
        assert thread is not None
    assert not thread._thread.is_alive()
    assert told.calls.empty()
