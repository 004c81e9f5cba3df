"""What was appended to the log comes back, wherever segments and groups end."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from raft_agent.storage.format import (
    BLOCK_BYTES,
    SEGMENT_HEADER_SIZE,
    decode_sync_marker,
    segment_name,
)
from raft_agent.storage.store import Store
from tests.unit.storage.support import (
    CLUSTER,
    configuration,
    configuration_batch,
    flip,
    make_batch,
    make_log,
    names,
    opened,
    recovered_log,
)


def test_what_was_appended_is_there_after_a_restart(tmp_path: Path) -> None:
    log = [configuration_batch(1), *make_log([10, 0, 5_000], first_index=2)]
    with opened(tmp_path) as driver:
        for batch in log:
            driver.append(batch)
    store = Store.open(tmp_path)
    store.close()
    image = store.recovered.log
    assert store.recovered.cluster_id == CLUSTER
    assert image.tail == tuple(log)
    assert image.configurations == ((1, configuration()),)
    assert image.last_index == log[-1].last_index


def test_a_log_of_many_segments_comes_back(tmp_path: Path) -> None:
    log = make_log([9_000, 100, 0, 20_000] * 12)
    for start in range(0, len(log), 16):
        with opened(tmp_path, segment_bytes=64 << 10) as driver:
            for batch in log[start : start + 16]:
                driver.append(batch)
    assert len(names(tmp_path / "log")) > 4
    assert recovered_log(tmp_path) == tuple(log)


def test_one_group_may_span_segments(tmp_path: Path) -> None:
    log = make_log([9_000] * 40)
    with opened(tmp_path, segment_bytes=64 << 10) as driver:
        driver.append(*log)
    assert recovered_log(tmp_path) == tuple(log)


def test_a_group_of_more_batches_than_one_call_takes_is_written(tmp_path: Path) -> None:
    log = [make_batch(index) for index in range(1, 3001)]
    with opened(tmp_path, segment_bytes=1 << 20) as driver:
        driver.append(*log)
    assert recovered_log(tmp_path) == tuple(log)


def test_a_batch_larger_than_a_segment_gets_one_of_its_own(tmp_path: Path) -> None:
    log = make_log([100, 200_000, 9_000])
    with opened(tmp_path, segment_bytes=32 << 10) as driver:
        for batch in log:
            driver.append(batch)
    assert recovered_log(tmp_path) == tuple(log)
    sizes = [path.stat().st_size for path in sorted((tmp_path / "log").iterdir())]
    assert sizes[1] >= 200_000
    assert sizes[0] == sizes[2] == 32 << 10


def test_the_first_segment_is_small_and_the_next_ones_grow(tmp_path: Path) -> None:
    log = make_log([400_000] * 20)
    with opened(tmp_path, segment_bytes=8 << 20) as driver:
        for batch in log:
            driver.append(batch)
    sizes = [path.stat().st_size for path in sorted((tmp_path / "log").iterdir())]
    assert sizes == [1 << 20, 4 << 20, 8 << 20]


def test_everything_queued_goes_out_with_one_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path, segment_bytes=1 << 20) as driver:
        driver.append(make_batch(1))
        entered, proceed = threading.Event(), threading.Event()
        syncs: list[str] = []
        real = os.fdatasync

        def held_back(fd: int) -> None:
            if threading.current_thread().name == "raft-log":
                syncs.append("sync")
                entered.set()
                proceed.wait(60)
            real(fd)

        monkeypatch.setattr(os, "fdatasync", held_back)
        driver.submit(make_batch(2))
        entered.wait(60)
        last = [driver.submit(make_batch(index)) for index in range(3, 50)][-1]
        proceed.set()
        answers = []
        while not answers or answers[-1] != last:
            answers.append(driver.logs.get(timeout=60))
        assert len(syncs) == 2
        assert answers == [2, last]


def markers(path: Path) -> list[int]:
    """What the markers in a segment say."""
    data = path.read_bytes()
    found = (decode_sync_marker(data, at) for at in range(len(data)))
    return [synced_index for synced_index in found if synced_index is not None]


def test_each_group_has_a_marker_that_names_the_entry_before_it(tmp_path: Path) -> None:
    log = make_log([100] * 6)
    with opened(tmp_path) as driver:
        driver.append(*log[:2])
        driver.append(log[2])
    with opened(tmp_path) as driver:
        driver.append(*log[3:])
    assert markers(tmp_path / "log" / segment_name(1)) == [
        0,
        log[1].last_index,
        log[2].last_index,
    ]


def test_no_marker_of_a_cut_log_names_an_entry_that_was_cut(tmp_path: Path) -> None:
    old = make_log([100] * 10)
    cut_at = old[5].first_index
    new = make_log([100] * 3, first_index=cut_at, term=50)
    with opened(tmp_path) as driver:
        for batch in old:
            driver.append(batch)
        driver.append(truncate_from=cut_at)
        paths = sorted((tmp_path / "log").glob("*.seg"))
        assert max(markers(paths[-1])) == old[3].last_index
        driver.append(*new)
    *_, last = sorted((tmp_path / "log").glob("*.seg"))
    assert markers(last) == [cut_at - 1]
    assert recovered_log(tmp_path) == (*old[:5], *new)


def test_a_batch_is_read_although_the_marker_before_it_is_damaged(tmp_path: Path) -> None:
    log = make_log([100] * 6)
    with opened(tmp_path) as driver:
        for batch in log:
            driver.append(batch)
    flip(tmp_path / "log" / segment_name(1), SEGMENT_HEADER_SIZE + 3)
    with opened(tmp_path) as driver:
        [warning] = driver.store.recovered.warnings
        assert "marker" in warning
        assert driver.store.read(1, 1 << 20) == tuple(log)
        driver.append(truncate_from=log[1].first_index)
    assert recovered_log(tmp_path) == (log[0],)


def test_only_the_end_of_the_log_is_kept_in_memory(tmp_path: Path) -> None:
    log = make_log([3_000] * 100)
    with opened(tmp_path, segment_bytes=64 << 10) as driver:
        driver.append(*log)
    for resident_bytes in (0, 1, 3_080, 10_000, 150_000, 1 << 20):
        store = Store.open(tmp_path, resident_bytes=resident_bytes)
        store.close()
        tail = store.recovered.log.tail
        assert tail == tuple(log[len(log) - len(tail) :])
        assert len(tail) == min(resident_bytes // 3_080, len(log))


def test_what_is_written_at_once_ends_where_a_block_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[int] = []
    real = os.pwritev

    def pwritev(fd: int, buffers: list[bytes], offset: int) -> int:
        ends.append(offset + sum(map(len, buffers)))
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "pwritev", pwritev)
    with opened(tmp_path, segment_bytes=64 << 10) as driver:
        ends.clear()
        for batch in make_log([9_000, 0, 5_000, 40_000, 20_000]):
            driver.append(batch)
        appends = [end for end in ends if end > SEGMENT_HEADER_SIZE]
    assert len(appends) >= 5
    assert [end % BLOCK_BYTES for end in appends] == [0] * len(appends)
