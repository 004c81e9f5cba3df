"""The store as the runtime uses it: open, append, vote, read, truncate, close."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from raft_agent.consensus.batch import Batch
from raft_agent.consensus.types import AppendLog, SaveVote, Vote
from raft_agent.storage.errors import StorageError
from raft_agent.storage.format import (
    BLOCK_BYTES,
    SEGMENT_HEADER_SIZE,
    SYNC_MARKER_SIZE,
    decode_sync_marker,
    segment_name,
)
from raft_agent.storage.store import Store
from tests.unit.storage.support import (
    CLUSTER,
    Driver,
    configuration,
    configuration_batch,
    make_batch,
    make_log,
    opened,
    recovered_log,
)


def segments(data_dir: Path) -> list[str]:
    return sorted(path.name for path in (data_dir / "log").iterdir())


def change(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


# --- Start


def test_a_first_start_makes_the_directory_and_a_member_id(tmp_path: Path) -> None:
    data_dir = tmp_path / "raft" / "node-01"
    store = Store.open(data_dir)
    recovered = store.recovered
    store.close()
    assert 0 < recovered.member_id < 1 << 64
    assert recovered.cluster_id == ""
    assert recovered.vote == Vote()
    assert (recovered.log.last_index, recovered.log.tail, recovered.warnings) == (0, (), [])
    assert data_dir.stat().st_mode & 0o777 == 0o700


def test_the_member_id_stays_and_no_two_directories_share_it(tmp_path: Path) -> None:
    ids = []
    for name in ("a", "b", "a"):
        store = Store.open(tmp_path / name)
        ids.append(store.recovered.member_id)
        store.close()
    assert ids[0] == ids[2] != ids[1]


def test_a_second_agent_is_refused_with_the_directory_and_the_process(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys; from raft_agent.storage.store import Store; "
        "Store.open(pathlib.Path(sys.argv[1]))"
    )
    store = Store.open(tmp_path)
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    with pytest.raises(StorageError) as caught:
        Store.open(tmp_path)
    store.close()
    for text in (result.stderr, str(caught.value)):
        assert str(tmp_path) in text
        assert f"process {os.getpid()}" in text
    assert result.returncode != 0
    Store.open(tmp_path).close()


def test_a_data_dir_that_can_not_be_used_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        Store.open(tmp_path / "file")


def test_an_empty_log_belongs_to_no_cluster(tmp_path: Path) -> None:
    with opened(tmp_path) as driver:
        driver.save_vote(1, 1, 1)
    store = Store.open(tmp_path)
    store.close()
    assert store.recovered.cluster_id == ""


# --- What was written comes back


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
    assert len(segments(tmp_path)) > 4
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
    change(tmp_path / "log" / segment_name(1), SEGMENT_HEADER_SIZE + 3)
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


# --- Term and vote


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
    change(tmp_path / "vote", 30)
    store = Store.open(tmp_path)
    store.close()
    assert store.recovered.vote == Vote(5, 77)
    assert len(store.recovered.warnings) == 1
    change(tmp_path / "vote", 30)
    change(tmp_path / "vote", BLOCK_BYTES + 30)
    with pytest.raises(StorageError, match="both copies"):
        Store.open(tmp_path)


def test_a_vote_file_with_one_damaged_copy_is_made_whole(tmp_path: Path) -> None:
    with opened(tmp_path) as driver:
        driver.save_vote(1, 5, 77)
    for position in (30, BLOCK_BYTES + 30):
        change(tmp_path / "vote", position)
        Store.open(tmp_path).close()
    store = Store.open(tmp_path)
    store.close()
    assert store.recovered.vote == Vote(5, 77)
    assert store.recovered.warnings == []


# --- Identity and foreign files


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
    change(tmp_path / "identity", 70)
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
        change(note, 20)
    if damage == "both copies":
        change(note, BLOCK_BYTES + 20)
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
    assert segments(tmp_path) == [segment_name(1)]


# --- Read


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
        change(tmp_path / "log" / segment_name(1), SEGMENT_HEADER_SIZE + 90)
        with pytest.raises(StorageError, match="checksum") as caught:
            driver.store.read(1, 1)
        assert caught.value.path.endswith(segment_name(1))
        assert caught.value.offset == SEGMENT_HEADER_SIZE
        second = long_log[1].first_index
        assert driver.store.read(second, 1) == (long_log[1],)


# --- Truncate


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
    assert len(segments(tmp_path)) == 1


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


# --- Vote floor


def damage_last_batch(data_dir: Path, log: list[Batch]) -> None:
    offset = SEGMENT_HEADER_SIZE + SYNC_MARKER_SIZE + sum(len(batch.record) for batch in log)
    change(data_dir / "log" / segment_name(1), offset - 60)


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


# --- Wrong use stops the store


@pytest.mark.parametrize(
    "effect",
    [
        AppendLog(9, 0, (make_batch(5),)),
        AppendLog(9, 0, (make_batch(3), make_batch(5))),
        AppendLog(9, 0, (make_batch(3, term=1),)),
        AppendLog(9, 4, ()),
        AppendLog(9, 2, ()),
    ],
    ids=["gap", "gap within", "term goes back", "cut behind the end", "cut inside a batch"],
)
def test_an_append_that_does_not_fit_stops_the_store(tmp_path: Path, effect: AppendLog) -> None:
    with opened(tmp_path) as driver:
        driver.append(make_batch(1, 2, 2))
        driver.store.append(effect)
        assert not driver.failures.get(timeout=60).disk_full
        driver.store.save_vote(SaveVote(1, 5, 5))
    assert recovered_log(tmp_path) == (make_batch(1, 2, 2),)


def test_an_entry_without_a_cluster_stops_the_store(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path)) as store:
        driver = Driver(store)
        driver.submit(make_batch(1))
        assert "belongs to a cluster" in driver.failures.get(timeout=60).reason


def test_a_log_does_not_change_its_cluster(tmp_path: Path) -> None:
    with opened(tmp_path) as driver:
        driver.append(make_batch(1))
        driver.store.found_cluster("another")
        assert "another" in driver.failures.get(timeout=60).reason
