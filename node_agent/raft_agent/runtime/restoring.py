"""The state machine from a snapshot: at the start, and when a leader has sent one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from raft_agent.consensus.generations import generation_of
from raft_agent.consensus.types import SnapshotMeta
from raft_agent.machine.blocks import SnapshotError, SnapshotVersionError
from raft_agent.machine.machine import Machine
from raft_agent.storage.errors import START_ANEW, StorageError
from raft_agent.storage.snapshots import SnapshotStore


def restore(
    snapshots: SnapshotStore, snapshot: SnapshotMeta, kind: type[Machine] = Machine
) -> Machine:
    """The state machine, of this `kind`, that `snapshot` holds. Blocks. Raises StorageError."""
    try:
        machine = kind.restore(snapshots.blocks(snapshot.index))
        held = machine.last_applied, machine.last_applied_term
        if held != (snapshot.index, snapshot.term):
            raise SnapshotError(f"it holds the state after index {held[0]} of term {held[1]}")
    except SnapshotError as error:
        what = f"the snapshot of index {snapshot.index} can't be used: {error}"
        advice = error.advice if isinstance(error, SnapshotVersionError) else START_ANEW
        raise StorageError(what, advice=advice) from error
    machine.begin_behind(generation_of(snapshot.configuration).floor)
    return machine


class Restorer:
    """Puts snapshots that came from a leader into `machine`: built in a thread, while the loop goes
    on, and taken over in one step.

    `before()` is awaited first, `fail` is told what ends the node.
    """

    def __init__(
        self,
        machine: Machine,
        snapshots: SnapshotStore,
        loop: asyncio.AbstractEventLoop,
        *,
        before: Callable[[], asyncio.Future[None] | asyncio.Task[None]],
        fail: Callable[[Exception], None],
    ) -> None:
        self._machine = machine
        self._snapshots = snapshots
        self._loop = loop
        self._before = before
        self._fail = fail
        self._task: asyncio.Task[None] | None = None

    def begin(self, snapshot: SnapshotMeta, restored: Callable[[], None]) -> None:
        """Have the machine take over what `snapshot` holds, then call `restored`."""
        self._task = self._loop.create_task(self._restore(snapshot, restored))

    async def _restore(self, snapshot: SnapshotMeta, restored: Callable[[], None]) -> None:
        try:
            await self._before()
            machine = await self._loop.run_in_executor(
                None, restore, self._snapshots, snapshot, type(self._machine)
            )
            self._machine.adopt(machine)
            restored()
        except Exception as error:
            # A bug among them: the node must end, and not go on installing for ever.
            self._fail(error)
            return
        # It has the old state now.
        await self._loop.run_in_executor(None, machine.dismantle)

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
