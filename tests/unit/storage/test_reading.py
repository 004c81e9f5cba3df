"""Batches are read from the disk by index."""

from __future__ import annotations

from pathlib import Path

import pytest

from raft_agent.consensus.batch import Batch
from raft_agent.storage.errors import StorageError
from raft_agent.storage.format import SEGMENT_HEADER_SIZE, segment_name
from tests.unit.storage.support import flip, make_log, opened


@pytest.fixture
def long_log(tmp_path: Path) -> list[Batch]:
    log = make_log([3_000, 10, 0, 700] * 60)
    with opened(tmp_path, segment_bytes=64 << 10) as driver:
        driver.append(*log)
    return log


def test_reading_starts_with_the_batch_that_holds_the_index(
    tmp_path: Path, long_log: list[Batch]
) -> None:
    with opened(tmp_path) as driver:
        for batch in long_log:
            for index in range(batch.first_index, batch.last_index + 1):
                assert driver.store.read(index, 1)[0] == batch


def test_reading_ends_before_the_limit_but_gives_one_batch(
    tmp_path: Path, long_log: list[Batch]
) -> None:
    with opened(tmp_path) as driver:
        for max_bytes in (0, 1, 5_000, 60_000, 100_000):
            found = driver.store.read(long_log[7].first_index, max_bytes)
            assert found == tuple(long_log[7 : 7 + len(found)])
            size = sum(len(batch.record) for batch in found)
            following = long_log[7 + len(found)]
            assert size <= max_bytes or len(found) == 1
            assert size + len(following.record) > max_bytes


def test_reading_what_is_not_there_gives_nothing(tmp_path: Path, long_log: list[Batch]) -> None:
    with opened(tmp_path) as driver:
        assert driver.store.read(long_log[-1].last_index + 1, 1000) == ()
        assert driver.store.read(0, 1000) == ()
    with opened(tmp_path / "empty") as driver:
        assert driver.store.read(1, 1000) == ()


def test_a_batch_that_went_bad_later_is_not_given_out(
    tmp_path: Path, long_log: list[Batch]
) -> None:
    with opened(tmp_path) as driver:
        flip(tmp_path / "log" / segment_name(1), SEGMENT_HEADER_SIZE + 90)
        with pytest.raises(StorageError, match="checksum") as caught:
            driver.store.read(1, 1)
        assert caught.value.path.endswith(segment_name(1))
        assert caught.value.offset == SEGMENT_HEADER_SIZE
        second = long_log[1].first_index
        assert driver.store.read(second, 1) == (long_log[1],)
