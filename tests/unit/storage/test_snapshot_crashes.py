"""Whatever was being done to snapshots and log when the process or the power went away: either the
old state is there or the new one, and everything that was answered."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from raft_agent.consensus.batch import Batch
from raft_agent.consensus.types import Vote
from raft_agent.storage import files, snapshots
from raft_agent.storage.format import decode_vote, encode_vote
from raft_agent.storage.store import Recovered, Store
from tests.unit.storage.disk import Crash, PowerFailures, restore
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

SEGMENT_BYTES = 20 << 10
EVERYTHING = 1 << 40


class State(msgspec.Struct, frozen=True):
    """What a node has: all batches since it was born or got a leader's snapshot, and the index of
    its newest snapshot (0: none)."""

    batches: tuple[Batch, ...] = ()
    snapshot: int = 0
    snapshot_term: int = 0

    @property
    def end(self) -> tuple[int, int]:
        if self.batches:
            return self.batches[-1].last_index, self.batches[-1].term
        return self.snapshot, self.snapshot_term

    def behind(self, index: int) -> tuple[Batch, ...]:
        return tuple(batch for batch in self.batches if batch.first_index > index)


class Step(msgspec.Struct, frozen=True):
    """`before` was answered, `after` will be."""

    before: State
    after: State

    def allows(self, found: Recovered, log: tuple[Batch, ...]) -> bool:
        return self._is(self.before, found, log) or self._is(self.after, found, log)

    def _is(self, state: State, found: Recovered, log: tuple[Batch, ...]) -> bool:
        snapshot = found.snapshot.index if found.snapshot is not None else 0
        if snapshot != state.snapshot:
            return False
        expected = state.behind(found.log.base_index)
        kept = sum(batch in self.before.batches for batch in expected)
        return log[:kept] == expected[:kept] and log == expected[: len(log)]


def appended(rng: random.Random, state: State) -> State:
    index, term = state.end
    term += rng.random() < 0.3 or not index
    new: list[Batch] = []
    for _ in range(rng.randint(1, 4)):
        count = rng.randint(1, 3)
        size = rng.choice([0, 100, 6_000, 9_000])
        new.append(make_batch(index + 1, term, count, rng.randbytes(size)))
        index += count
    return State((*state.batches, *new), state.snapshot, state.snapshot_term)


def with_snapshot(rng: random.Random, state: State) -> State:
    """A snapshot of one of the batches behind the last one."""
    batch = rng.choice(state.behind(state.snapshot)[-6:])
    return State(state.batches, batch.last_index, batch.term)


def lives(rng: random.Random, disk: PowerFailures, data_dir: Path) -> Iterator[State]:
    """Three processes that append, take snapshots, compact and get a leader's snapshot."""
    state = State()
    for _ in range(3):
        with opened(data_dir, segment_bytes=SEGMENT_BYTES) as driver:
            for turn in range(9):
                after = appended(rng, state)
                if turn in (2, 5, 8) and state.behind(state.snapshot):
                    after = with_snapshot(rng, state)
                elif turn == 6:
                    # Of a new term: the log does not hold it, even where it is longer.
                    index, term = state.end
                    index = max(index + rng.randint(-10, 10), state.snapshot + 1)
                    after = State((), index, term + 1)
                disk.note = Step(state, after)
                carry_out(driver, state, after)
                state = after
                disk.note = Step(state, state)
        yield state


def carry_out(driver: Driver, before: State, after: State) -> None:
    snapshots = driver.store.snapshots
    index, term = after.snapshot, after.snapshot_term
    if index == before.snapshot:
        driver.append(*after.batches[len(before.batches) :])
    elif after.batches:
        take_snapshot(snapshots, index, term)
        driver.compact(snapshots.older_index)
    else:
        data = snapshot_bytes(index, term)
        assert driver.install(receive(snapshots, data, index, term)) is not None


def check(crash: Crash, directory: Path) -> None:
    restore(crash.image, directory)
    step = crash.note
    assert isinstance(step, Step)
    what = f"crash {crash.number}, before {crash.operation}"
    for start in range(2):
        store = Store.open(directory, segment_bytes=SEGMENT_BYTES)
        try:
            found = store.recovered
            log = store.read(found.log.base_index + 1, EVERYTHING)
            assert step.allows(found, log), f"{what}, start {start}"
            assert found.log.tail == log, what
            assert found.log.last_index == (log[-1].last_index if log else found.log.base_index), (
                what
            )
            if found.snapshot is not None:
                index = found.snapshot.index
                assert found.log.base_index <= index <= found.log.last_index, what
                assert list(store.snapshots.blocks(index)) == snapshot_blocks(index), what
                assert found.cluster_id == CLUSTER, what
            if start:
                assert found.warnings == [], what  # the first start has put everything right
                assert not list((directory / "snapshots").glob("*.tmp")), what
        finally:
            store.close()


@pytest.fixture
def without_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made of the images is not going to crash; the disk would take most of the time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(os, "fdatasync", lambda _: None)
    monkeypatch.setattr(os, "posix_fadvise", lambda *_: None)


def check_all(disk: PowerFailures, tmp_path: Path) -> int:
    images = set()
    for crash in (*disk.killed, *disk.worst, *disk.random):
        key = hash((tuple(sorted(crash.image.items())), msgspec.msgpack.encode(crash.note)))
        if key not in images:
            images.add(key)
            check(crash, tmp_path / str(len(images)))
    return len(images)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.usefixtures("without_syncs")
def test_a_crash_at_any_point_leaves_the_old_state_or_the_new_one(
    tmp_path: Path, seed: int
) -> None:
    data_dir = tmp_path / "data"
    Store.open(data_dir, segment_bytes=SEGMENT_BYTES).close()
    with pytest.MonkeyPatch.context() as patched:
        disk = PowerFailures(data_dir, patched, seed)
        disk.note = Step(State(), State())
        try:
            final = list(lives(random.Random(seed), disk, data_dir))[-1]
        finally:
            disk.close()
    operations = {crash.operation for crash in disk.killed}
    assert any(name.startswith("replace(incoming") for name in operations)
    assert any(name.startswith("unlink(0") and ".seg" in name for name in operations)
    assert any(name.startswith("unlink(0") and ".snap" in name for name in operations)
    assert check_all(disk, tmp_path) > 100
    check(Crash(0, "the end", Step(final, final), image_of(data_dir)), tmp_path / "final")


def image_of(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


@pytest.mark.usefixtures("without_syncs")
def test_a_crash_while_a_start_drops_the_log_leads_to_the_same_start(tmp_path: Path) -> None:
    """As it is after a crash between the new snapshot's name and the end of the log."""
    data_dir = tmp_path / "data"
    rng = random.Random(1)
    state = State()
    with opened(data_dir, segment_bytes=SEGMENT_BYTES) as driver:
        for _ in range(12):
            after = appended(rng, state)
            carry_out(driver, state, after)
            state = after
        old = with_snapshot(rng, state)
        carry_out(driver, state, old)
        new = State((), old.end[0] + 50, old.end[1] + 1)
        effect = receive(
            driver.store.snapshots,
            snapshot_bytes(new.snapshot, new.snapshot_term),
            new.snapshot,
            new.snapshot_term,
        )
        assert driver.store.snapshots.install(effect, CLUSTER) is not None
    assert len(list((data_dir / "log").glob("*.seg"))) > 3
    with pytest.MonkeyPatch.context() as patched:
        disk = PowerFailures(data_dir, patched, 1)
        disk.note = Step(new, new)
        try:
            Store.open(data_dir, segment_bytes=SEGMENT_BYTES).close()
        finally:
            disk.close()
    assert check_all(disk, tmp_path) > 5


class Killed(BaseException):
    """The process ends here."""


@contextlib.contextmanager
def killed_before_names_are_durable(module: ModuleType) -> Iterator[None]:
    def end(_: Path) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "sync_directory", end)
        with pytest.raises(Killed):
            yield


def test_a_name_that_a_killed_agent_left_is_durable_before_the_start_builds_on_it(
    tmp_path: Path,
) -> None:
    """The log goes in favour of the snapshot, so a power failure must not take that back."""
    data_dir = tmp_path / "data"
    old = appended(random.Random(1), State())
    new = State((), old.end[0] + 50, old.end[1] + 1)
    with opened(data_dir, segment_bytes=SEGMENT_BYTES) as driver:
        carry_out(driver, State(), old)
    with pytest.MonkeyPatch.context() as patched:
        disk = PowerFailures(data_dir, patched, 1)
        disk.note = Step(old, new)
        try:
            with opened(data_dir, segment_bytes=SEGMENT_BYTES) as driver:
                data = snapshot_bytes(new.snapshot, new.snapshot_term)
                effect = receive(driver.store.snapshots, data, new.snapshot, new.snapshot_term)
                with killed_before_names_are_durable(snapshots):
                    driver.store.snapshots.install(effect, CLUSTER)
            Store.open(data_dir, segment_bytes=SEGMENT_BYTES).close()
        finally:
            disk.close()
    assert check_all(disk, tmp_path) > 5


def test_a_vote_that_a_killed_agent_left_is_durable_before_the_start_knows_of_it(
    tmp_path: Path,
) -> None:
    """Whoever asks for it again gets it without another write."""
    data_dir = tmp_path / "data"
    Store.open(data_dir).close()
    with pytest.MonkeyPatch.context() as patched:
        disk = PowerFailures(data_dir, patched, 1)
        try:
            with killed_before_names_are_durable(files):
                files.replace_file(data_dir / "vote", encode_vote(Vote(7, 2)))
            store = Store.open(data_dir)
            assert store.recovered.vote == Vote(7, 2)
            store.close()
            files.replace_file(data_dir / "other", b"")
        finally:
            disk.close()
    assert decode_vote(disk.worst[-1].image["vote"]).vote == Vote(7, 2)
