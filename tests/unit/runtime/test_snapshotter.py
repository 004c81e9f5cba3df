"""When snapshots are taken, what becomes of one that fails, and the state machine from one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from raft_agent.consensus.types import (
    AuditWanted,
    Event,
    Judgement,
    SnapshotMeta,
    StateHashed,
)
from raft_agent.machine.machine import Machine
from raft_agent.runtime import snapshotter
from raft_agent.runtime.restoring import Restorer, restore
from raft_agent.storage.errors import StorageError
from raft_agent.storage.snapshots import SnapshotStore, open_snapshots
from tests.unit.runtime.jumping import run
from tests.unit.runtime.snapshotting import Failing, Host


@pytest.fixture
def snapshots(tmp_path: Path) -> SnapshotStore:
    return open_snapshots(tmp_path).store


async def settle(host: Host) -> None:
    """Whatever has begun comes to its end."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert host.snapshotter._task is None


def test_so_many_entries_make_a_snapshot_due(snapshots: SnapshotStore) -> None:
    async def test() -> None:
        host = Host(snapshots, due_entries=5)
        for number in range(5 - host.machine.last_applied - 1):
            host.write(f"k{number}")
        await settle(host)
        assert host.taken == []
        host.write("last")
        await host.next_word()
        # Behind the audit entry that the fifth one has led to.
        assert [meta.index for meta in host.taken] == [6]
        assert host.events[0][1]["index"] == 6

    run(test)


def test_so_many_bytes_of_log_make_a_snapshot_due(snapshots: SnapshotStore) -> None:
    async def test() -> None:
        host = Host(snapshots, due_bytes=10_000)
        host.write("k", bytes(9_000))
        await settle(host)
        assert host.taken == []
        host.write("k", bytes(2_000))
        await host.next_word()
        assert host.taken[0].index == host.machine.last_applied - 1

    run(test)


def test_a_large_snapshot_is_taken_only_when_the_log_has_grown_by_as_much(
    snapshots: SnapshotStore,
) -> None:
    async def test() -> None:
        host = Host(snapshots, due_bytes=100)
        host.write("large", bytes(range(256)) * 400)
        await host.next_word()
        size = host.taken[0].size_bytes
        written = 0
        while written + 30_000 < size:
            host.write("small", bytes(20_000))
            written += 30_000
        await settle(host)
        assert len(host.taken) == 1
        host.write("more", bytes(size))
        await host.next_word()
        assert len(host.taken) == 2

    run(test)


def test_a_snapshot_holds_the_moment_at_which_it_began(snapshots: SnapshotStore) -> None:
    async def test() -> None:
        host = Host(snapshots)
        for number in range(200):
            host.put(f"k{number:03}", b"before")
        host.snapshotter.take()
        await asyncio.sleep(0)
        for number in range(200):
            host.put(f"k{number:03}", b"after")
        await host.next_word()
        (meta,) = host.taken
        machine = restore(snapshots, meta)
        assert machine.last_applied == meta.index == host.machine.last_applied - 201
        values = [machine.get(f"k{number:03}") for number in range(200)]
        assert {entry.value for entry in values if entry} == {b"before"}
        assert None not in values

    run(test)


def test_one_is_taken_at_a_time(snapshots: SnapshotStore) -> None:
    async def test() -> None:
        host = Host(snapshots, due_entries=1)
        host.write("a")
        host.write("b")
        host.snapshotter.take()
        await host.next_word()
        assert len(host.taken) == 1

    run(test)


def test_a_snapshot_that_failed_costs_nothing_and_is_tried_again_after_a_while() -> None:
    async def test() -> None:
        disk = Failing()
        host = Host(disk, due_entries=1)
        host.write("a")
        await host.next_word()
        assert host.events == [("snapshot_failed", {"reason": "No space left on device"})]
        await asyncio.sleep(29)
        host.write("b")
        await settle(host)
        assert disk.tries == 1
        await asyncio.sleep(2)
        host.write("c")
        await host.next_word()
        assert disk.tries == 2

    run(test)


def test_after_one_that_failed_no_more_log_than_before_makes_the_next_one_due() -> None:
    async def test() -> None:
        disk = Failing()
        host = Host(disk, due_bytes=10_000)
        host.write("a", bytes(11_000))
        await host.next_word()
        await asyncio.sleep(31)
        host.write("b")
        assert host.snapshotter._task is not None
        await host.next_word()
        assert disk.tries == 2

    run(test)


def test_after_one_that_succeeded_what_was_applied_meanwhile_counts_for_the_next(
    snapshots: SnapshotStore,
) -> None:
    async def test() -> None:
        host = Host(snapshots, due_bytes=10_000)
        host.snapshotter.applied(10_000)
        host.snapshotter.applied(6_000)
        await host.next_word()
        assert len(host.taken) == 1
        await settle(host)
        host.snapshotter.applied(3_999)
        assert host.snapshotter._task is None
        host.snapshotter.applied(1)
        assert host.snapshotter._task is not None
        await host.next_word()
        assert len(host.taken) == 2

    run(test)


def test_a_bug_in_a_snapshot_is_told_once_in_a_while_and_not_for_every_entry() -> None:
    async def test() -> None:
        disk = Failing(ValueError("a bug"))
        host = Host(disk, due_entries=1)
        host.write("a")
        await host.told.wait()
        host.told.clear()
        assert [str(error) for error in host.errors] == ["a bug"]
        await asyncio.sleep(29)
        host.write("b")
        await settle(host)
        assert disk.tries == 1
        await asyncio.sleep(2)
        host.write("c")
        await host.told.wait()
        assert disk.tries == 2

    run(test)


def test_one_that_failed_is_not_tried_again_at_once_whoever_asks() -> None:
    async def test() -> None:
        disk = Failing()
        host = Host(disk)
        assert host.snapshotter.take()
        await host.next_word()
        assert not host.snapshotter.take()
        await asyncio.sleep(31)
        assert host.snapshotter.take()
        await host.next_word()
        assert disk.tries == 2

    run(test)


def test_a_snapshot_that_is_given_up_leaves_no_file(
    tmp_path: Path, snapshots: SnapshotStore
) -> None:
    async def test() -> None:
        host = Host(snapshots)
        host.put("k", bytes(1_000_000))
        before = set(tmp_path.iterdir())
        host.snapshotter.take()
        await asyncio.sleep(0)
        await host.snapshotter.stop()
        assert host.taken == []
        assert set(tmp_path.iterdir()) == before

    run(test)


@pytest.mark.parametrize("found", [Judgement.DIFFERS, Judgement.DISPUTED])
def test_a_snapshot_of_a_state_that_is_not_a_majoritys_gets_no_name(
    tmp_path: Path, snapshots: SnapshotStore, found: Judgement
) -> None:
    async def test() -> None:
        host = Host(snapshots)
        host.put("k", b"spoilt")
        host.spoils = found
        host.snapshotter.take()
        task = host.snapshotter._task
        assert task is not None
        await asyncio.wait([task])
        assert host.taken == []
        assert snapshots.newest is None
        assert list(tmp_path.iterdir()) == []
        host.spoils = None
        host.snapshotter.take()
        await host.next_word()
        assert len(host.taken) == 1

    run(test)


MIB = 1 << 20


def test_another_audit_entry_is_asked_for_when_the_one_for_a_snapshot_was_left_out(
    snapshots: SnapshotStore,
) -> None:
    async def test() -> None:
        host = Host(snapshots)
        asked: list[Event] = []
        host.snapshotter._feed = asked.append
        assert host.snapshotter.take()
        host.write("k")
        assert asked == [AuditWanted()]
        host.snapshotter.left_out()
        assert asked == [AuditWanted()] * 2
        host.write("k")
        assert asked == [AuditWanted()] * 2

    run(test)


def test_changes_cost_no_more_while_a_snapshot_waits_for_the_members_word(
    snapshots: SnapshotStore,
) -> None:
    async def test() -> None:
        host = Host(snapshots)
        host.put("k")
        views: list[int] = []
        feed = host.snapshotter._feed

        def fed(event: Event) -> None:
            if isinstance(event, StateHashed):
                views.append(len(host.machine._views))
            feed(event)

        host.snapshotter._feed = fed
        assert host.snapshotter.take()
        await host.next_word()
        assert len(host.taken) == 1
        assert views == [0]

    run(test)


async def written_sizes(
    snapshots: SnapshotStore, monkeypatch: pytest.MonkeyPatch, values: int, value_bytes: int
) -> list[int]:
    """Take a snapshot of so many values; how many bytes each write to the file had."""
    host = Host(snapshots)
    for number in range(values):
        host.put(f"k{number:05}", bytes(value_bytes))
    sizes: list[int] = []
    real = os.pwritev

    def noted(fd: int, buffers: Sequence[bytes], offset: int) -> int:
        sizes.append(sum(map(len, buffers)))
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "pwritev", noted)
    await taken(host)
    assert sum(sizes) == host.taken[0].size_bytes
    return sizes


def test_the_thread_writes_many_blocks_at_once(
    snapshots: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time that it wants the interpreter back the loop may have to wait."""

    async def test() -> None:
        # 8 MiB with the history of the keys.
        sizes = await written_sizes(snapshots, monkeypatch, 4 * 1024, 1024)
        assert len(sizes) <= 12
        assert max(sizes) <= 2 * MIB

    run(test)


def test_large_values_are_not_gathered(
    snapshots: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        sizes = await written_sizes(snapshots, monkeypatch, 4, 3 * MIB // 2)
        assert max(sizes) < 2 * MIB

    run(test)


def test_when_picking_takes_long_others_have_a_turn_in_between(
    snapshots: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        monkeypatch.setattr(snapshotter, "_PICK_S", 0.0)
        host = Host(snapshots)
        for number in range(1024):
            host.put(f"k{number:05}", bytes(1024))
        view = host.machine.begin_snapshot()
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(others())
        portions = await snapshotter._pick(view)
        task.cancel()
        view.close()
        assert turns >= len(portions) > 4

    run(test)


# --- the state machine from a snapshot ------------------------------------------------------------


async def taken(host: Host) -> SnapshotMeta:
    host.snapshotter.take()
    await host.next_word()
    return host.taken[-1]


def test_a_snapshot_from_a_leader_is_taken_over_in_one_step(snapshots: SnapshotStore) -> None:
    async def test() -> None:
        host = Host(snapshots)
        host.put("k", b"of the leader")
        meta = await taken(host)
        mine = Machine()
        steps: list[str] = []
        done = asyncio.Event()

        async def before() -> None:
            steps.append("before")

        def restored() -> None:
            steps.append(f"restored at {mine.last_applied}")
            done.set()

        loop = asyncio.get_running_loop()
        restorer = Restorer(
            mine,
            snapshots,
            loop,
            before=lambda: loop.create_task(before()),
            fail=lambda error: steps.append(str(error)),
        )
        restorer.begin(meta, restored)
        await done.wait()
        assert steps == ["before", f"restored at {meta.index}"]
        assert mine.revision == host.machine.revision

    run(test)


def test_a_snapshot_that_can_not_be_used_ends_the_node_and_changes_nothing(
    tmp_path: Path, snapshots: SnapshotStore
) -> None:
    async def test() -> None:
        host = Host(snapshots)
        host.put("k", bytes(range(256)) * 100)
        meta = await taken(host)
        (path,) = tmp_path.glob("*")
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        with pytest.raises(StorageError):
            restore(snapshots, meta)
        failed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        mine = Machine()

        async def before() -> None:
            return

        loop = asyncio.get_running_loop()
        restorer = Restorer(
            mine,
            snapshots,
            loop,
            before=lambda: loop.create_task(before()),
            fail=failed.set_result,
        )
        restorer.begin(meta, lambda: failed.set_exception(AssertionError("it was taken over")))
        assert isinstance(await failed, StorageError)
        assert mine.last_applied == 0

    run(test)
