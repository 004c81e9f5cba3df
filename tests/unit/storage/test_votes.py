"""Term, vote and vote floor come back, or the start is refused."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from raft_agent.consensus.batch import Batch
from raft_agent.consensus.types import Vote
from raft_agent.storage.errors import StorageError
from raft_agent.storage.format import (
    BLOCK_BYTES,
    SEGMENT_HEADER_SIZE,
    SYNC_MARKER_SIZE,
    segment_name,
)
from raft_agent.storage.store import Store
from tests.unit.storage.support import flip, make_batch, make_log, opened


def test_term_and_vote_come_back(tmp_path: Path) -> None:
    with opened(tmp_path) as driver:
        driver.save_vote(1, 5, 0)
        driver.save_vote(2, 5, 77)
    store = Store.open(tmp_path)
    store.close()
    assert store.recovered.vote == Vote(5, 77)


def test_a_vote_does_not_wait_for_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path) as driver:
        driver.append(make_batch(1))
        proceed = threading.Event()
        real = os.fdatasync

        def held_back(fd: int) -> None:
            proceed.wait(60)
            real(fd)

        monkeypatch.setattr(os, "fdatasync", held_back)
        driver.submit(make_batch(2))
        driver.save_vote(1, 3, 9)
        assert driver.logs.empty()
        proceed.set()


def test_a_missing_vote_file_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as driver:
        driver.append(make_batch(1))
    (tmp_path / "vote").unlink()
    with pytest.raises(StorageError, match="vote file is missing") as caught:
        Store.open(tmp_path)
    assert "vote twice" in str(caught.value)


def test_a_vote_file_with_two_damaged_copies_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as driver:
        driver.save_vote(1, 5, 77)
    flip(tmp_path / "vote", 30)
    store = Store.open(tmp_path)
    store.close()
    assert store.recovered.vote == Vote(5, 77)
    assert len(store.recovered.warnings) == 1
    flip(tmp_path / "vote", 30)
    flip(tmp_path / "vote", BLOCK_BYTES + 30)
    with pytest.raises(StorageError, match="both copies"):
        Store.open(tmp_path)


def test_a_vote_file_with_one_damaged_copy_is_made_whole(tmp_path: Path) -> None:
    with opened(tmp_path) as driver:
        driver.save_vote(1, 5, 77)
    for position in (30, BLOCK_BYTES + 30):
        flip(tmp_path / "vote", position)
        Store.open(tmp_path).close()
    store = Store.open(tmp_path)
    store.close()
    assert store.recovered.vote == Vote(5, 77)
    assert store.recovered.warnings == []


def damage_last_batch(data_dir: Path, log: list[Batch]) -> None:
    offset = SEGMENT_HEADER_SIZE + SYNC_MARKER_SIZE + sum(len(batch.record) for batch in log)
    flip(data_dir / "log" / segment_name(1), offset - 60)


def floor_of(data_dir: Path) -> tuple[int, int]:
    store = Store.open(data_dir)
    store.close()
    return store.recovered.vote.floor_term, store.recovered.vote.floor_index


def test_the_floor_survives_restarts_and_votes_until_the_log_reaches_it(tmp_path: Path) -> None:
    log = make_log([100, 100, 100])
    last = log[-1]
    with opened(tmp_path) as driver:
        driver.append(*log)
    damage_last_batch(tmp_path, log)
    for _ in range(2):
        assert floor_of(tmp_path) == (last.term, last.last_index)
    with opened(tmp_path) as driver:
        driver.save_vote(1, 9, 3)
    assert floor_of(tmp_path) == (last.term, last.last_index)
    with opened(tmp_path) as driver:
        driver.append(last)
    store = Store.open(tmp_path)
    store.close()
    assert store.recovered.vote == Vote(9, 3)


def test_a_floor_that_was_reached_while_running_does_not_come_back(tmp_path: Path) -> None:
    log = make_log([100, 100, 100])
    with opened(tmp_path) as driver:
        driver.append(*log)
    damage_last_batch(tmp_path, log)
    with opened(tmp_path) as driver:
        driver.append(log[-1])
        driver.append(truncate_from=log[-1].first_index)
        driver.save_vote(1, 9, 3)
    assert floor_of(tmp_path) == (0, 0)
