"""Writes and syncs that fail, and disks that are full."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raft_agent.consensus.types import SaveVote, Vote
from raft_agent.storage import files
from raft_agent.storage.errors import StorageError
from raft_agent.storage.format import encode_vote, segment_name
from raft_agent.storage.snapshots import INCOMING_NAME
from raft_agent.storage.store import Store
from tests.unit.storage.support import (
    Driver,
    configuration,
    make_batch,
    make_log,
    opened,
    receive,
    recovered_log,
    snapshot_bytes,
    take_snapshot,
)

MIB = 1 << 20


class Faults:
    """Makes calls of `os` fail while `number` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.number = 0
        self.calls = 0
        self._monkeypatch = monkeypatch

    def on(self, name: str, applies: Callable[[int], bool] | None = None) -> None:
        real = getattr(os, name)

        def call(fd: int, *args: object) -> object:
            if self.number and (applies is None or applies(fd)):
                self.calls += 1
                raise OSError(self.number, os.strerror(self.number))
            return real(fd, *args)

        self._monkeypatch.setattr(os, name, call)


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    return Faults(monkeypatch)


def is_segment(fd: int) -> bool:
    return Path(f"/proc/self/fd/{fd}").readlink().suffix == ".seg"


def is_vote(fd: int) -> bool:
    return Path(f"/proc/self/fd/{fd}").readlink().name.startswith("vote")


@pytest.mark.parametrize("call", ["pwritev", "fdatasync"])
def test_a_failed_write_or_sync_is_told_once_and_nothing_is_answered_after_it(
    tmp_path: Path, faults: Faults, call: str
) -> None:
    faults.on(call, is_segment)
    with opened(tmp_path) as driver:
        driver.append(make_batch(1))
        faults.number = errno.EIO
        driver.submit(make_batch(2))
        failure = driver.failures.get(timeout=60)
        faults.number = 0
        for index in range(2, 30):
            driver.submit(make_batch(index))
        driver.store.save_vote(SaveVote(1, 5, 5))
    assert not failure.shortage
    assert failure.reason == f"writing the log failed: {os.strerror(errno.EIO)}"
    assert faults.calls == 1
    assert driver.failures.empty()
    assert driver.logs.empty()
    assert driver.votes.empty()
    assert recovered_log(tmp_path)[0] == make_batch(1)
    assert (tmp_path / "vote").read_bytes() == encode_vote(Vote())


def test_the_log_that_can_not_be_compacted_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path, segment_bytes=32 << 10) as driver:
        driver.append(*make_log([5_000] * 20))
        take_snapshot(driver.store.snapshots, 20)

        def refused(path: Path) -> None:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))

        monkeypatch.setattr(Path, "unlink", refused)
        driver.store.compact(20)
        reason = driver.failures.get(timeout=60).reason
    first = tmp_path / "log" / segment_name(1)
    assert reason == f"compacting the log failed: {first}: {os.strerror(errno.EACCES)}"


def test_a_leaders_snapshot_that_can_not_be_installed_is_said_to_be(
    tmp_path: Path, faults: Faults
) -> None:
    faults.on("fsync")
    with opened(tmp_path) as driver:
        driver.append(make_batch(1))
        effect = receive(driver.store.snapshots, snapshot_bytes(50), 50)
        faults.number = errno.EIO
        driver.store.install_snapshot(effect)
        reason = driver.failures.get(timeout=60).reason
    incoming = tmp_path / "snapshots" / INCOMING_NAME
    said = "installing the leader's snapshot failed"
    assert reason == f"{said}: {incoming}: {os.strerror(errno.EIO)}"


@pytest.mark.parametrize(
    ("number", "lacks"),
    [
        (errno.EIO, ""),
        (errno.ENOSPC, "the disk is full"),
        (errno.EMFILE, "no more files can be opened"),
    ],
)
def test_a_vote_that_can_not_be_saved_stops_the_store(
    tmp_path: Path, faults: Faults, number: int, lacks: str
) -> None:
    faults.on("fsync", is_vote)
    with opened(tmp_path) as driver:
        driver.save_vote(1, 3, 1)
        faults.number = number
        driver.store.save_vote(SaveVote(2, 4, 2))
        assert driver.failures.get(timeout=60).shortage == lacks
        faults.number = 0
        driver.store.save_vote(SaveVote(3, 5, 2))
        driver.submit(make_batch(1))
    assert driver.votes.empty()
    assert driver.logs.empty()
    store = Store.open(tmp_path)
    store.close()
    assert store.recovered.vote == Vote(3, 1)
    assert store.recovered.log.last_index == 0


def test_a_sync_that_ends_after_the_failure_is_not_answered(
    tmp_path: Path, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults.on("fsync", is_vote)
    with opened(tmp_path) as driver:
        driver.append(make_batch(1))
        entered, proceed = threading.Event(), threading.Event()
        real = os.fdatasync

        def held_back(fd: int) -> None:
            entered.set()
            proceed.wait(60)
            real(fd)

        monkeypatch.setattr(os, "fdatasync", held_back)
        driver.submit(make_batch(2))
        entered.wait(60)
        faults.number = errno.EIO
        driver.store.save_vote(SaveVote(1, 4, 2))
        driver.failures.get(timeout=60)
        proceed.set()
    assert driver.logs.empty()


def test_a_short_write_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_vector, real = os.pwritev, os.pwrite

    def some(fd: int, buffers: list[bytes], offset: int) -> int:
        return real(fd, b"".join(buffers)[: max(1, sum(map(len, buffers)) // 3)], offset)

    def bit(fd: int, data: bytes, offset: int) -> int:
        return real(fd, bytes(data)[:1000], offset)

    log = make_log([5_000, 300, 0, 2_000])
    with opened(tmp_path) as driver:
        driver.append(log[0])
        monkeypatch.setattr(os, "pwritev", some)
        monkeypatch.setattr(os, "pwrite", bit)
        driver.append(*log[1:])
        monkeypatch.setattr(os, "pwritev", real_vector)
    assert recovered_log(tmp_path) == tuple(log)


def test_many_buffers_are_written_in_order(tmp_path: Path) -> None:
    buffers = [str(number).encode() for number in range(5000)]
    path = tmp_path / "file"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    end = files.write_all(fd, buffers, 7)
    os.close(fd)
    assert path.read_bytes() == bytes(7) + b"".join(buffers)
    assert end == path.stat().st_size


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_room_for_the_next_segment_is_a_full_disk_and_passes(
    tmp_path: Path, faults: Faults, number: int
) -> None:
    faults.on("posix_fallocate")
    log = make_log([5_000] * 20)
    with opened(tmp_path, segment_bytes=32 << 10) as driver:
        driver.append(*log[:2])
        faults.number = number
        done = 2
        while driver.failures.empty():
            driver.submit(log[done])
            done += 1
            while driver.failures.empty() and driver.logs.empty():
                driver.store.read(1, 1)
            if not driver.logs.empty():
                driver.logs.get()
        assert driver.failures.get().shortage
        assert not driver.store.has_room()
        faults.number = 0
        assert driver.store.has_room()
    with opened(tmp_path, segment_bytes=32 << 10) as driver:
        found = driver.store.read(1, MIB)
        assert len(found) in (done - 1, done)
        driver.append(*log[len(found) :])
    assert recovered_log(tmp_path) == tuple(log)


def test_a_segment_that_could_not_be_prepared_is_made_when_it_is_needed(
    tmp_path: Path, faults: Faults
) -> None:
    faults.on("posix_fallocate")
    log = make_log([5_000] * 10)
    with opened(tmp_path, segment_bytes=32 << 10) as driver:
        driver.append(log[0])
        faults.number = errno.ENOSPC
        driver.append(*log[1:4])  # half full now: the next one is asked for
        while not faults.calls:
            driver.append(truncate_from=log[4].first_index)
        faults.number = 0
        driver.append(*log[4:])
    assert recovered_log(tmp_path) == tuple(log)


def test_a_disk_that_fails_while_preparing_stops_the_store(tmp_path: Path, faults: Faults) -> None:
    faults.on("posix_fallocate")
    log = make_log([5_000] * 10)
    with opened(tmp_path, segment_bytes=32 << 10) as driver:
        driver.append(log[0])
        faults.number = errno.EIO
        driver.append(*log[1:4])
        while not faults.calls:
            driver.append(truncate_from=log[4].first_index)
        faults.number = 0
        driver.submit(*log[4:])
        assert not driver.failures.get(timeout=60).shortage


def test_file_systems_that_can_not_reserve_are_written_all_the_same(
    tmp_path: Path, faults: Faults
) -> None:
    faults.on("posix_fallocate")
    faults.number = errno.EOPNOTSUPP
    log = make_log([5_000] * 30)
    with opened(tmp_path, segment_bytes=32 << 10) as driver:
        driver.append(*log)
    assert recovered_log(tmp_path) == tuple(log)


def test_a_disk_that_fails_at_start_is_refused_in_words(tmp_path: Path, faults: Faults) -> None:
    with opened(tmp_path) as driver:
        driver.append(make_batch(1))
    faults.on("fsync", is_segment)
    faults.number = errno.EIO
    with pytest.raises(StorageError, match=os.strerror(errno.EIO)) as caught:
        Store.open(tmp_path)
    assert "disk" in str(caught.value)
    faults.number = 0
    assert recovered_log(tmp_path) == (make_batch(1),)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root")
    target = tmp_path / "disk"
    target.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=6m", "raft-test", str(target)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"this machine does not let root mount a tmpfs: {mounted.stderr.strip()}")
    try:
        yield target
    finally:
        subprocess.run(["umount", str(target)], check=True)


def fill(path: Path) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        path.write_bytes(bytes(64 * MIB))


def append_until_full(driver: Driver, index: int) -> int:
    """Appends of 100,000 bytes until the store fails; the last index that was answered."""
    answered = index - 1
    while True:
        seq = driver.submit(make_batch(index, 1, 1, bytes([index % 256]) * 100_000))
        while driver.failures.empty() and driver.logs.empty():
            driver.store.read(1, 1)
        if driver.logs.empty():
            assert driver.failures.get().shortage
            return answered
        assert driver.logs.get() == seq
        answered = index
        index += 1


def test_a_really_full_disk_stops_writing_and_goes_on_when_there_is_room(small_disk: Path) -> None:
    data_dir, ballast = small_disk / "data", small_disk / "ballast"
    ballast.write_bytes(bytes(2 * MIB))
    with opened(data_dir, segment_bytes=MIB) as driver:
        answered = append_until_full(driver, 1)
        assert not driver.store.has_room()
        found = driver.store.read(1, 1 << 30)
    assert answered > 5
    assert [batch.first_index for batch in found] == list(range(1, answered + 1))
    fill(small_disk / "rest")
    with opened(data_dir, segment_bytes=MIB) as driver:  # opening needs no room
        assert driver.store.recovered.log.last_index >= answered
        driver.store.save_vote(SaveVote(1, 5, 5))
        assert driver.failures.get(timeout=60).shortage
    ballast.unlink()
    (small_disk / "rest").unlink()
    with opened(data_dir, segment_bytes=MIB) as driver:
        assert driver.store.has_room()
        last_index = driver.store.recovered.log.last_index
        driver.append(make_batch(last_index + 1))
        driver.save_vote(1, 5, 5)
    assert recovered_log(data_dir)[-1] == make_batch(last_index + 1)


def test_a_snapshot_that_does_not_fit_is_given_up_and_the_log_goes_on(small_disk: Path) -> None:
    data_dir = small_disk / "data"
    with opened(data_dir, segment_bytes=MIB) as driver:
        driver.append(make_batch(1))
        first = take_snapshot(driver.store.snapshots, 1)
        driver.append(make_batch(2))
        file = driver.store.snapshots.create(2, 1, 1, configuration())
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as caught:  # noqa: PT012
            while True:
                file.write_blocks(bytes(100_000))
        assert files.shortage(caught.value) == "the disk is full"
        assert driver.store.snapshots.newest == first
        assert len(list((data_dir / "snapshots").iterdir())) == 1
        assert driver.store.has_room()
        driver.append(make_batch(3))
        assert driver.failures.empty()
        take_snapshot(driver.store.snapshots, 3)
        assert driver.store.snapshots.older_index == 1
