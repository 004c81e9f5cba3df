"""What the engine makes of disk work that fails."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from raft_agent.consensus.types import Effect, Event, ReadSnapshot, SnapshotRead, TimerExpired
from raft_agent.runtime.engine import Engine
from raft_agent.storage.snapshots import SnapshotStore, open_snapshots
from tests.unit.runtime.jumping import run
from tests.unit.storage.support import snapshot_bytes, take_snapshot


class Core:
    """Gives `effect` once, and keeps what comes back."""

    next_deadline_us = None

    def __init__(self, effect: Effect) -> None:
        self.state = SimpleNamespace(failed=False)
        self.answer: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        self._effects = [effect]

    def step(self, event: Event, _now_us: int) -> list[Effect]:
        if not self._effects:
            self.answer.set_result(event)
            return []
        return [self._effects.pop()]


class Observer:
    """Notes what it is told of snapshots that can't be read; takes any other call."""

    def __init__(self) -> None:
        self.unreadable: list[tuple[int, str]] = []

    def on_snapshot_unreadable(self, index: int, reason: str) -> None:
        self.unreadable.append((index, reason))

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


class Store:
    """A node's store of which only the snapshots matter."""

    def __init__(self, snapshots: SnapshotStore) -> None:
        self.snapshots = snapshots

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


async def answer_to(effect: Effect, snapshots: SnapshotStore) -> tuple[Event, Observer]:
    """What the core gets to hear of `effect`."""
    core, observer = Core(effect), Observer()
    engine = Engine(
        node=cast("Any", core),
        store=cast("Any", Store(snapshots)),
        transport=cast("Any", None),
        observer=cast("Any", observer),
        loop=asyncio.get_running_loop(),
    )
    engine.feed(TimerExpired(None))
    return await core.answer, observer


@pytest.fixture
def snapshots(tmp_path: Path) -> SnapshotStore:
    return open_snapshots(tmp_path).store


@pytest.fixture
def file(tmp_path: Path, snapshots: SnapshotStore) -> Path:
    """That of the snapshot of index 10."""
    take_snapshot(snapshots, 10)
    (path,) = tmp_path.iterdir()
    return path


def test_a_piece_of_a_snapshot_is_read(snapshots: SnapshotStore, file: Path) -> None:
    assert file.exists()

    async def test() -> None:
        answer, observer = await answer_to(ReadSnapshot(2, 10, 100, 50), snapshots)
        assert answer == SnapshotRead(2, 10, 100, snapshot_bytes(10)[100:150])
        assert observer.unreadable == []

    run(test)


def test_a_snapshot_that_can_not_be_read_does_not_end_the_node(
    snapshots: SnapshotStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async def test() -> None:
        monkeypatch.setattr(os, "pread", failing)
        answer, observer = await answer_to(ReadSnapshot(2, 10, 100, 50), snapshots)
        assert answer == SnapshotRead(2, 10, 100, b"")
        assert observer.unreadable == [(10, f"{file}: {os.strerror(errno.EIO)}")]

    run(test)


@pytest.mark.parametrize("size_bytes", [None, 100], ids=["removed", "cut short"])
def test_a_snapshot_that_has_lost_what_is_to_be_sent_can_not_be_read(
    snapshots: SnapshotStore, file: Path, size_bytes: int | None
) -> None:
    if size_bytes is None:
        file.unlink()
    else:
        os.truncate(file, size_bytes)

    async def test() -> None:
        answer, observer = await answer_to(ReadSnapshot(2, 10, 100, 50), snapshots)
        assert answer == SnapshotRead(2, 10, 100, b"")
        assert [index for index, _ in observer.unreadable] == [10]

    run(test)


def test_a_snapshot_that_newer_ones_have_replaced_is_no_trouble(snapshots: SnapshotStore) -> None:
    for index in (10, 20, 30):
        take_snapshot(snapshots, index)

    async def test() -> None:
        answer, observer = await answer_to(ReadSnapshot(2, 10, 100, 50), snapshots)
        assert answer == SnapshotRead(2, 10, 100, b"")
        assert observer.unreadable == []

    run(test)
