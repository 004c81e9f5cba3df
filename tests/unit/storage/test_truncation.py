"""The end of the log is cut off, and what stands there then is what was appended last."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from raft_agent.storage.errors import StorageError
from raft_agent.storage.store import Store
from tests.unit.storage.support import CLUSTER, make_log, names, opened, recovered_log


@pytest.mark.parametrize("keep", [0, 1, 20, 39, 40])
def test_a_truncated_log_goes_on_with_the_new_batches(tmp_path: Path, keep: int) -> None:
    old = make_log([5_000] * 40)
    first_index = old[keep - 1].last_index + 1 if keep else 1
    new = make_log([4_000] * 30, first_index=first_index, term=100)
    expected = (*old[:keep], *new)
    with opened(tmp_path, segment_bytes=64 << 10) as driver:
        driver.append(*old)
        driver.append(*new, truncate_from=first_index)
        assert driver.store.read(1, 1 << 30) == expected
        for batch in expected:
            assert driver.store.read(batch.last_index, 1) == (batch,)
    assert recovered_log(tmp_path) == expected


def test_nothing_of_a_truncated_log_comes_back(tmp_path: Path) -> None:
    old = make_log([5_000] * 40)
    with opened(tmp_path, segment_bytes=64 << 10) as driver:
        driver.append(*old)
        driver.append(truncate_from=old[3].first_index)
        assert driver.store.read(old[3].first_index, 1) == ()
    assert recovered_log(tmp_path) == tuple(old[:3])
    assert len(names(tmp_path / "log")) == 1


def test_a_log_cut_to_nothing_still_knows_its_cluster(tmp_path: Path) -> None:
    with opened(tmp_path) as driver:
        driver.append(*make_log([10, 10]))
        driver.append(truncate_from=1)
    store = Store.open(tmp_path)
    store.close()
    assert (store.recovered.cluster_id, store.recovered.log.last_index) == (CLUSTER, 0)


@pytest.mark.parametrize("keep", [2, 8], ids=["its file is cut", "its file is removed"])
def test_a_read_that_a_cut_overtakes_gives_the_new_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: int
) -> None:
    log = make_log([9_000] * 12)
    start = log[keep].first_index
    new = make_log([9_000] * 4, first_index=start, term=50)
    with opened(tmp_path, segment_bytes=64 << 10) as driver:
        driver.append(*log)
        real = os.pread

        def overtaken(fd: int, size: int, offset: int) -> bytes:
            monkeypatch.setattr(os, "pread", real)
            driver.append(*new, truncate_from=start)
            return real(fd, size, offset)

        monkeypatch.setattr(os, "pread", overtaken)
        assert driver.store.read(log[keep].first_index, 1 << 20) == tuple(new)


def test_readers_see_old_or_new_batches_while_the_log_is_cut(tmp_path: Path) -> None:
    old = make_log([2_000] * 30)
    known = set(old)
    stop = threading.Event()
    wrong: list[object] = []

    with opened(tmp_path, segment_bytes=32 << 10) as driver:
        driver.append(*old)
        start = old[10].first_index
        rounds = [make_log([2_000] * 20, first_index=start, term=term) for term in range(20, 35)]
        known.update(batch for log in rounds for batch in log)

        def read() -> None:
            while not stop.is_set():
                try:
                    found = driver.store.read(old[5].first_index, 60_000)
                except StorageError as error:
                    wrong.append(error)
                    return
                indexes = [batch.first_index for batch in found]
                if not known.issuperset(found) or indexes != sorted(indexes):
                    wrong.append(found)

        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        for log in rounds:
            driver.append(*log, truncate_from=start)
        stop.set()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert driver.store.read(1, 1 << 30) == (*old[:10], *rounds[-1])
