"""What becomes of snapshots that the state machine can't be built from, and of the node."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from raft_agent.consensus.types import Configuration, Member, SnapshotMeta
from raft_agent.machine.blocks import Portion, Section, encode_block
from raft_agent.machine.machine import Machine
from raft_agent.machine.results import Repeated, WriteDone
from raft_agent.runtime.restoring import Restorer, restore
from raft_agent.storage.errors import START_ANEW, StorageError
from raft_agent.storage.snapshots import SnapshotStore, open_snapshots
from tests.unit.runtime.jumping import run


@pytest.fixture
def snapshots(tmp_path: Path) -> SnapshotStore:
    return open_snapshots(tmp_path).store


def written_as(snapshots: SnapshotStore, portions: list[Portion]) -> SnapshotMeta:
    """A snapshot file that holds these portions."""
    configuration = Configuration("a-cluster", (Member(1, "node-01", "a:1"),), (1,))
    file = snapshots.create(1, 1, 1, configuration)
    for portion in portions:
        file.write_blocks(encode_block(portion))
    return file.finish()


def portions_of(machine: Machine) -> list[Portion]:
    view = machine.begin_snapshot()
    found = list(iter(view.next_items, None))
    view.close()
    return found


def test_whoever_can_not_go_on_after_a_snapshot_was_taken_over_ends_the_node(
    snapshots: SnapshotStore,
) -> None:
    async def test() -> None:
        machine = Machine()
        machine.last_applied = machine.last_applied_term = 1
        meta = written_as(snapshots, portions_of(machine))
        loop = asyncio.get_running_loop()
        failed: asyncio.Future[Exception] = loop.create_future()
        restorer = Restorer(
            Machine(),
            snapshots,
            loop,
            before=lambda: loop.create_task(asyncio.sleep(0)),
            fail=failed.set_result,
        )

        def restored() -> None:
            raise ValueError("a bug")

        restorer.begin(meta, restored)
        assert restorer._task is not None
        await asyncio.wait([restorer._task, failed], return_when=asyncio.FIRST_COMPLETED)
        assert failed.done()
        assert str(failed.result()) == "a bug"

    run(test)


@pytest.mark.parametrize(
    "change", [{"version": 9}, {"settings": {"of_a_later_version": 1}}], ids=["version", "setting"]
)
def test_a_snapshot_of_a_later_version_is_no_reason_to_start_anew(
    snapshots: SnapshotStore, change: dict[str, Any]
) -> None:
    first, *rest = portions_of(Machine())
    header = msgspec.structs.replace(first.items[0], **change)
    meta = written_as(snapshots, [Portion(Section.HEADER, [header]), *rest])
    with pytest.raises(StorageError) as caught:
        restore(snapshots, meta)
    assert caught.value.advice.startswith("Install")


def test_a_snapshot_that_does_not_fit_together_is_refused_in_words(
    snapshots: SnapshotStore,
) -> None:
    first, *_ = portions_of(Machine())
    stray = Portion(Section.RESULTS, [(77, 1, Repeated(1, 1, WriteDone(1)))])
    meta = written_as(snapshots, [first, stray])
    with pytest.raises(StorageError, match=r"can't be used: .* section RESULTS .*77") as caught:
        restore(snapshots, meta)
    assert caught.value.advice == START_ANEW


def test_a_snapshot_that_holds_another_state_than_its_name_says_is_refused(
    snapshots: SnapshotStore,
) -> None:
    machine = Machine()
    machine.last_applied, machine.last_applied_term = 2, 1
    meta = written_as(snapshots, portions_of(machine))
    with pytest.raises(StorageError, match="holds the state after index 2 of term 1"):
        restore(snapshots, meta)
