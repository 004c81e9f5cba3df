"""Whatever the storage was doing when the process or the power went away, the log is one that it
had, and everything that was answered is there."""

from __future__ import annotations

import os
import random
from pathlib import Path

import msgspec
import pytest

from raft_agent.consensus.batch import Batch
from raft_agent.consensus.types import SaveVote, Vote
from raft_agent.storage.store import Store
from tests.unit.storage.disk import Crash, PowerFailures, restore
from tests.unit.storage.support import CLUSTER, Driver, make_batch, opened, recovered_log

SEGMENT_BYTES = 20 << 10


class Step(msgspec.Struct, frozen=True):
    """`before` was on disk and answered; the rest is under way."""

    before: tuple[Batch, ...] = ()
    truncate_from: int = 0
    new: tuple[Batch, ...] = ()
    vote: Vote = Vote()
    new_vote: Vote = Vote()

    def after(self) -> tuple[Batch, ...]:
        kept = self.before
        if self.truncate_from:
            kept = tuple(b for b in kept if b.first_index < self.truncate_from)
        return kept + self.new

    def allows(self, log: tuple[Batch, ...]) -> bool:
        after = self.after()
        kept = len(after) - len(self.new)
        if kept <= len(log) and log == after[: len(log)]:
            return True
        return kept <= len(log) and log == self.before[: len(log)]


def next_step(rng: random.Random, step: Step) -> Step:
    log = step.after()
    term = log[-1].term if log else 1
    index = log[-1].last_index + 1 if log else 1
    truncate_from = 0
    if log and rng.random() < 0.25:
        truncate_from = index = rng.choice(log[-8:]).first_index
        term += 1
    new: list[Batch] = []
    for _ in range(rng.randint(0 if truncate_from else 1, 4)):
        size = rng.choice([0, 100, 2_000, 6_000, 30_000])
        count = rng.randint(1, 3)
        new.append(make_batch(index, term, count, rng.randbytes(size)))
        index += count
    vote = step.new_vote
    return Step(log, truncate_from, tuple(new), vote, vote)


def run(data_dir: Path, seed: int, disk: PowerFailures) -> Step:
    """A life of 24 steps in three processes; the step under way is always `disk.note`."""
    rng = random.Random(seed)
    step = Step()
    disk.note = step
    seq = 0
    for _ in range(3):
        with opened(data_dir, segment_bytes=SEGMENT_BYTES) as driver:
            for _ in range(8):
                step = next_step(rng, step)
                disk.note = step
                driver.append(*step.new, truncate_from=step.truncate_from)
                if rng.random() < 0.3:
                    vote = Vote(step.vote.term + 1, rng.randint(0, 5))
                    step = Step(step.after(), 0, (), step.vote, vote)
                    disk.note = step
                    seq += 1
                    driver.save_vote(seq, vote.term, vote.voted_for)
                step = Step(step.after(), 0, (), step.new_vote, step.new_vote)
                disk.note = step
    return step


def check(crash: Crash, directory: Path) -> None:
    restore(crash.image, directory)
    log = recovered_log(directory)
    step = crash.note
    assert isinstance(step, Step)
    what = f"crash {crash.number}, before {crash.operation}"
    assert step.allows(log), what
    store = Store.open(directory, segment_bytes=SEGMENT_BYTES)
    store.close()
    recovered = store.recovered
    assert recovered.vote in (step.vote, step.new_vote), what
    assert recovered.warnings == [], what  # the first start has put everything right
    assert recovered.cluster_id == (CLUSTER if log else recovered.cluster_id), what
    assert recovered.log.tail == log, what


@pytest.mark.parametrize("seed", range(3))
def test_a_crash_at_any_point_leaves_a_log_with_everything_that_was_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    data_dir = tmp_path / "data"
    Store.open(data_dir, segment_bytes=SEGMENT_BYTES).close()
    disk = PowerFailures(data_dir, monkeypatch, seed)
    try:
        final = run(data_dir, seed, disk)
    finally:
        disk.close()
    assert recovered_log(data_dir) == final.after()
    # What is made of the images is not going to crash; real syncs would take most of the time.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(os, "fdatasync", lambda _: None)
    images = set()
    for crash in (*disk.killed, *disk.worst, *disk.random):
        key = hash((tuple(sorted(crash.image.items())), msgspec.msgpack.encode(crash.note)))
        if key not in images:
            images.add(key)
            check(crash, tmp_path / str(len(images)))
    assert len(images) > 100


@pytest.mark.parametrize("length", [1, 39, 41, 3_000, 9_000])
def test_a_torn_write_of_a_running_node_is_cut_and_overwritten(tmp_path: Path, length: int) -> None:
    log = [make_batch(1, 1, 1, b"a" * 500), make_batch(2, 1, 1, b"b" * 500)]
    lost = make_batch(3, 1, 1, b"c" * 9_000)
    with opened(tmp_path) as driver:
        driver.append(*log)
        driver.append(lost)
    [path] = (tmp_path / "log").iterdir()
    data = bytearray(path.read_bytes())
    end = data.rindex(lost.record)
    data[end + length : end + len(lost.record)] = bytes(len(lost.record) - length)
    path.write_bytes(data)
    other = make_batch(3, 2, 1, b"d" * 5_000)
    with opened(tmp_path) as driver:
        assert len(driver.store.recovered.warnings) == 1
        assert driver.store.recovered.log.last_index == 2
        driver.append(other)
        assert driver.store.read(1, 1 << 20) == (*log, other)
    assert recovered_log(tmp_path) == (*log, other)


def test_the_vote_floor_is_on_disk_before_the_damaged_batch_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir = tmp_path / "data"
    log = [make_batch(1, 3, 2, b"a" * 500), make_batch(3, 4, 5, b"b" * 500)]
    with opened(data_dir) as driver:
        driver.append(*log)
    [path] = (data_dir / "log").iterdir()
    data = bytearray(path.read_bytes())
    data[data.rindex(b"b")] ^= 1
    path.write_bytes(data)
    disk = PowerFailures(data_dir, monkeypatch, 1)
    try:
        Store.open(data_dir).close()
    finally:
        disk.close()
    crashes = (*disk.killed, *disk.worst, *disk.random)
    assert any("ftruncate" in crash.operation for crash in crashes)
    for number, crash in enumerate(crashes):
        directory = tmp_path / str(number)
        restore(crash.image, directory)
        store = Store.open(directory)
        store.close()
        vote = store.recovered.vote
        assert (vote.floor_term, vote.floor_index) == (4, 7), crash.operation
        assert store.recovered.log.last_index == 2


def test_a_store_that_was_never_closed_is_recovered(tmp_path: Path) -> None:
    """As after SIGKILL: nothing was tidied up."""
    log = [make_batch(1), make_batch(2)]
    store = Store.open(tmp_path / "data")
    driver = Driver(store)
    store.found_cluster(CLUSTER)
    driver.append(*log)
    store.save_vote(SaveVote(1, 2, 3))
    driver.votes.get(timeout=60)
    image = {
        str(path.relative_to(tmp_path / "data")): path.read_bytes()
        for path in (tmp_path / "data").rglob("*")
        if path.is_file()
    }
    store.close()
    restore(image, tmp_path / "copy")
    assert recovered_log(tmp_path / "copy") == tuple(log)
