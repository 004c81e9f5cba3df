"""A log whose beginning goes, and one that is forgotten for a leader's snapshot."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from raft_agent.consensus.batch import Batch
from raft_agent.consensus.types import AppendLog, InstallSnapshot, SnapshotMeta
from raft_agent.storage import reader
from raft_agent.storage.datadir import LAST_SEGMENT_NAME
from raft_agent.storage.errors import StorageError
from raft_agent.storage.format import decode_segment_header, parse_segment_name
from raft_agent.storage.snapshot_format import snapshot_name
from raft_agent.storage.store import Recovered, Store
from tests.unit.storage.support import (
    CLUSTER,
    Driver,
    make_batch,
    opened,
    receive,
    snapshot_blocks,
    snapshot_bytes,
    take_snapshot,
)

MIB = 1 << 20
SEGMENT_BYTES = 20 << 10
LOG = [make_batch(index, 1 + index // 10, 1, bytes([index]) * 6_000) for index in range(1, 25)]


def segments(data_dir: Path) -> list[int]:
    """The first indexes of the log's segments."""
    found = [parse_segment_name(path.name) for path in (data_dir / "log").iterdir()]
    return sorted(first for first in found if first)


def reopened(data_dir: Path) -> Recovered:
    store = Store.open(data_dir, segment_bytes=SEGMENT_BYTES)
    store.close()
    return store.recovered


def filled(driver: Driver, upto: int = 24) -> None:
    """A log in many segments: what does not fit into one begins the next."""
    for batch in LOG[:upto]:
        driver.append(batch)


# --- Compaction


def test_whole_segments_go_and_the_rest_can_be_read(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=SEGMENT_BYTES) as driver:
        filled(driver)
        before = segments(tmp_path)
        take_snapshot(driver.store.snapshots, 12, 2)
        driver.compact(12)
        after = segments(tmp_path)
        assert after == [first for first in before if first >= after[0]]
        assert after[0] <= 13 < before[before.index(after[0]) + 1]
        assert driver.store.read(after[0], 100 * MIB) == tuple(LOG[after[0] - 1 :])
        assert driver.store.read(after[0] - 1, MIB) == ()
        assert driver.store.read(1, MIB) == ()


@pytest.mark.parametrize("position", [1, 3])
def test_a_segment_goes_exactly_when_its_last_entry_may(tmp_path: Path, position: int) -> None:
    with opened(tmp_path, segment_bytes=SEGMENT_BYTES) as driver:
        filled(driver)
        take_snapshot(driver.store.snapshots, 24, 3)
        before = segments(tmp_path)
        driver.compact(before[position] - 2)
        assert segments(tmp_path) == before[position - 1 :]
        driver.compact(before[position] - 1)
        assert segments(tmp_path) == before[position:]


def test_a_compacted_log_starts_again_from_the_snapshot(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=SEGMENT_BYTES) as driver:
        filled(driver)
        meta = take_snapshot(driver.store.snapshots, 12, 2)
        driver.compact(12)
    with opened(tmp_path, segment_bytes=SEGMENT_BYTES) as driver:
        recovered = driver.store.recovered
        assert recovered.snapshot == meta
        assert (recovered.log.base_index, recovered.log.base_term) == (12, 2)
        assert recovered.log.last_index == 24
        assert recovered.log.tail == tuple(LOG[12:])
        assert recovered.cluster_id == CLUSTER
        assert recovered.warnings == []
        assert list(driver.store.snapshots.blocks(12)) == snapshot_blocks(12)
        driver.append(make_batch(25, 4))
    assert reopened(tmp_path).log.last_index == 25


def test_the_last_segment_stays_although_a_snapshot_holds_it(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=SEGMENT_BYTES) as driver:
        filled(driver)
        take_snapshot(driver.store.snapshots, 24, 3)
        driver.compact(24)
        [last] = segments(tmp_path)
        driver.append(make_batch(25, 4))
    image = reopened(tmp_path).log
    assert last <= 24
    assert (image.base_index, image.base_term, image.last_index) == (24, 3, 25)
    assert image.term_runs == ((25, 4),)


def test_a_log_of_one_segment_is_not_compacted(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=MIB) as driver:
        driver.append(*LOG[:5])
        take_snapshot(driver.store.snapshots, 5)
        driver.compact(5)
        assert driver.store.read(1, MIB) == tuple(LOG[:5])


def test_nothing_is_deleted_that_no_snapshot_holds(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=SEGMENT_BYTES) as driver:
        filled(driver)
        with pytest.raises(ValueError, match="no snapshot holds"):
            driver.store.compact(12)
        take_snapshot(driver.store.snapshots, 11, 2)
        with pytest.raises(ValueError, match="no snapshot holds"):
            driver.store.compact(12)
    assert segments(tmp_path)[0] == 1


def test_a_compacted_log_can_be_cut_down_to_its_base(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=SEGMENT_BYTES) as driver:
        filled(driver)
        take_snapshot(driver.store.snapshots, 12, 2)
        driver.compact(12)
        driver.append(make_batch(13, 5), truncate_from=13)
    recovered = reopened(tmp_path)
    assert recovered.log.tail == (make_batch(13, 5),)
    assert recovered.log.base_index == 12


def test_a_reader_on_its_way_into_a_segment_that_goes_finds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, proceed = threading.Event(), threading.Event()
    found: list[tuple[Batch, ...] | Exception] = []
    with opened(tmp_path, segment_bytes=SEGMENT_BYTES) as driver:
        filled(driver)
        take_snapshot(driver.store.snapshots, 12, 2)
        real = reader._batches_at  # between looking a segment up and opening it

        def held_back(*args: object) -> object:
            entered.set()
            proceed.wait(60)
            return real(*args)

        def read() -> None:
            try:
                found.append(driver.store.read(1, MIB))
            except Exception as error:
                found.append(error)

        monkeypatch.setattr(reader, "_batches_at", held_back)
        thread = threading.Thread(target=read)
        thread.start()
        entered.wait(60)
        driver.compact(12)
        proceed.set()
        thread.join(60)
    assert found == [()]


def test_readers_see_entries_or_nothing_while_the_log_is_compacted(tmp_path: Path) -> None:
    stop = threading.Event()
    seen: list[str] = []

    def read(driver: Driver, from_index: int) -> None:
        while not stop.is_set():
            try:
                batches = driver.store.read(from_index, 20_000)
            except StorageError as error:
                seen.append(str(error))
                return
            if batches != tuple(LOG[from_index - 1 : from_index - 1 + len(batches)]):
                seen.append(f"{from_index}: {batches}")

    with opened(tmp_path, segment_bytes=SEGMENT_BYTES) as driver:
        filled(driver)
        threads = [
            threading.Thread(target=read, args=(driver, index), daemon=True)
            for index in (1, 7, 12, 20)
        ]
        for thread in threads:
            thread.start()
        for index in range(2, 24):
            take_snapshot(driver.store.snapshots, index, 1 + index // 10)
            driver.compact(index)
        stop.set()
        for thread in threads:
            thread.join(60)
    assert seen == []


# --- Installing


def installed(driver: Driver, index: int, term: int) -> None:
    effect = receive(driver.store.snapshots, snapshot_bytes(index, term), index, term)
    meta = driver.install(effect)
    assert meta is not None
    assert (meta.index, meta.term) == (index, term)


def test_an_installed_snapshot_takes_the_place_of_the_log(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=SEGMENT_BYTES) as driver:
        filled(driver)
        installed(driver, 100, 7)
        assert segments(tmp_path) == []
        assert driver.store.read(24, MIB) == ()
        assert driver.store.read(101, MIB) == ()
        driver.append(make_batch(101, 7))
        assert driver.store.read(101, MIB) == (make_batch(101, 7),)
    recovered = reopened(tmp_path)
    assert recovered.snapshot is not None
    assert recovered.snapshot.index == 100
    image = recovered.log
    assert (image.base_index, image.base_term, image.last_index) == (100, 7, 101)
    assert image.tail == (make_batch(101, 7),)
    assert recovered.warnings == []


def test_an_installed_snapshot_is_a_start_without_any_entry(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=SEGMENT_BYTES) as driver:
        filled(driver)
        installed(driver, 100, 7)
    with opened(tmp_path, segment_bytes=SEGMENT_BYTES) as driver:
        image = driver.store.recovered.log
        assert (image.base_index, image.last_index, image.tail) == (100, 100, ())
        assert driver.store.recovered.cluster_id == CLUSTER
        driver.append(make_batch(101, 7))
    assert reopened(tmp_path).log.last_index == 101


def test_a_fresh_node_comes_to_its_cluster_with_the_snapshot(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    driver = Driver(store)
    installed(driver, 100, 7)
    store.found_cluster(CLUSTER)
    driver.append(make_batch(101, 7))
    store.close()
    recovered = reopened(tmp_path)
    assert (recovered.cluster_id, recovered.log.last_index) == (CLUSTER, 101)


def test_what_was_queued_before_is_answered_before(tmp_path: Path) -> None:
    told: list[str] = []
    done = threading.Event()

    def tell_installed(index: int, _snapshot: SnapshotMeta | None) -> None:
        told.append(f"snapshot {index}")
        done.set()

    store = Store.open(tmp_path, segment_bytes=SEGMENT_BYTES)
    store.found_cluster(CLUSTER)
    effect = receive(store.snapshots, snapshot_bytes(100, 7), 100, 7)
    store.append(AppendLog(1, 0, (LOG[0],)))
    store.append(AppendLog(2, 0, (LOG[1],)))
    store.install_snapshot(effect)
    store.start(
        post=lambda callback: callback(),
        on_log_persisted=lambda seq: told.append(f"log {seq}"),
        on_vote_persisted=lambda _: None,
        on_snapshot_installed=tell_installed,
        on_failed=lambda failure: told.append(failure.reason),
    )
    assert done.wait(60)
    store.close()
    assert told == ["log 2", "snapshot 100"]


def test_a_wrong_checksum_changes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=SEGMENT_BYTES) as driver:
        filled(driver, 5)
        data = snapshot_bytes(100, 7)
        effect = receive(driver.store.snapshots, data, 100, 7)
        wrong = InstallSnapshot(100, 7, effect.size_bytes, effect.checksum ^ 1)
        assert driver.install(wrong) is None
        assert driver.store.read(1, MIB) == tuple(LOG[:5])
        driver.append(LOG[5])
    recovered = reopened(tmp_path)
    assert recovered.snapshot is None
    assert recovered.log.tail == tuple(LOG[:6])


def test_a_snapshot_of_another_cluster_changes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=SEGMENT_BYTES) as driver:
        filled(driver, 5)
        data = snapshot_bytes(100, 7, cluster_id="another")
        assert driver.install(receive(driver.store.snapshots, data, 100, 7)) is None
        assert driver.store.read(1, MIB) == tuple(LOG[:5])


def test_a_failed_installation_is_told_like_a_failed_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path, segment_bytes=SEGMENT_BYTES) as driver:
        filled(driver, 5)
        effect = receive(driver.store.snapshots, snapshot_bytes(100, 7), 100, 7)
        real = os.fsync

        def fail(fd: int) -> None:
            if "snapshots" in str(Path(f"/proc/self/fd/{fd}").readlink()):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(fd)

        monkeypatch.setattr(os, "fsync", fail)
        driver.store.install_snapshot(effect)
        failure = driver.failures.get(timeout=60)
        assert failure.shortage
        monkeypatch.setattr(os, "fsync", real)
    assert driver.installed.empty()
    assert reopened(tmp_path).log.tail == tuple(LOG[:5])


def test_reaching_the_vote_floor_by_a_snapshot_lifts_it(tmp_path: Path) -> None:
    with opened(tmp_path) as driver:
        driver.append(make_batch(1, 3, 2, b"a" * 500), make_batch(3, 4, 5, b"b" * 500))
    [path] = (tmp_path / "log").iterdir()
    data = bytearray(path.read_bytes())
    data[data.rindex(b"b")] ^= 1
    path.write_bytes(data)
    with opened(tmp_path) as driver:
        assert driver.store.recovered.vote.floor_index == 7
        installed(driver, 7, 4)
    assert reopened(tmp_path).vote.floor_index == 0


# --- Damage


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-30] ^= 1
    path.write_bytes(data)


def test_a_damaged_newest_snapshot_costs_nothing(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=SEGMENT_BYTES) as driver:
        filled(driver)
        snapshots = driver.store.snapshots
        older = take_snapshot(snapshots, 10, 2)
        take_snapshot(snapshots, 20, 3)
        driver.compact(snapshots.older_index)
    path = tmp_path / "snapshots" / snapshot_name(20, 3)
    flip(path)
    with opened(tmp_path, segment_bytes=SEGMENT_BYTES) as driver:
        recovered = driver.store.recovered
        assert recovered.snapshot == older
        assert recovered.log.base_index == 10
        assert recovered.log.tail == tuple(LOG[10:])
        assert str(path) in recovered.warnings[0]
        take_snapshot(driver.store.snapshots, 22, 3)
    recovered = reopened(tmp_path)
    assert recovered.warnings == []
    assert recovered.snapshot is not None
    assert recovered.snapshot.index == 22


def test_a_damaged_only_snapshot_of_a_compacted_log_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=SEGMENT_BYTES) as driver:
        filled(driver)
        take_snapshot(driver.store.snapshots, 12, 2)
        driver.compact(12)
    path = tmp_path / "snapshots" / snapshot_name(12, 2)
    flip(path)
    with pytest.raises(StorageError, match="damaged") as caught:
        Store.open(tmp_path)
    assert caught.value.path == str(path)
    assert caught.value.offset > 0
    assert "raftctl join NAME ADDRESS" in str(caught.value)


def test_a_damaged_installed_snapshot_is_not_replaced_by_an_older_one(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=SEGMENT_BYTES) as driver:
        filled(driver)
        take_snapshot(driver.store.snapshots, 12, 2)
        installed(driver, 100, 7)
    flip(tmp_path / "snapshots" / snapshot_name(100, 7))
    with pytest.raises(StorageError, match="where the log begins"):
        Store.open(tmp_path)


def test_a_snapshot_ahead_of_the_log_is_where_the_node_starts(tmp_path: Path) -> None:
    """A leader may apply what a majority has before its own disk has it."""
    with opened(tmp_path, segment_bytes=SEGMENT_BYTES) as driver:
        filled(driver, 10)
        take_snapshot(driver.store.snapshots, 12, 2)
    recovered = reopened(tmp_path)
    assert (recovered.log.base_index, recovered.log.last_index) == (12, 12)
    assert segments(tmp_path) == []
    noted = decode_segment_header((tmp_path / LAST_SEGMENT_NAME).read_bytes())
    assert (noted.first_index, noted.is_to_come) == (13, True)


def test_a_directory_with_snapshots_and_no_identity_has_been_used(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    take_snapshot(store.snapshots, 5)
    store.close()
    (tmp_path / "identity").unlink()
    with pytest.raises(StorageError, match="identity file is missing"):
        Store.open(tmp_path)
