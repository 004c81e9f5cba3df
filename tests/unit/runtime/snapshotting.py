"""A node that takes snapshots, and one that fails to."""

from __future__ import annotations

import asyncio
from typing import Any

from raft_agent.consensus.batch import BatchKind
from raft_agent.consensus.types import (
    Event,
    Judgement,
    SnapshotMeta,
    SnapshotTaken,
    StateJudged,
    read_verdict,
)
from raft_agent.machine.commands import Put, encode_command, join_commands
from raft_agent.machine.machine import Machine
from raft_agent.runtime.snapshotter import Snapshotter
from raft_agent.storage.snapshots import SnapshotStore
from tests.unit.consensus.server import Server, log_of, of


class Failing:
    """A disk on which no snapshot can be begun."""

    older_index = 0

    def __init__(self, error: Exception | None = None) -> None:
        self.tries = 0
        self._error = error or OSError(28, "No space left on device")

    def create(self, *_: object) -> object:
        self.tries += 1
        raise self._error


class Host:
    """A node of one whose machine applies what it is given. `store` is its own store's face.
    `spoils`: what the members are said to find, whatever they do."""

    def __init__(
        self,
        snapshots: SnapshotStore | Failing,
        *,
        due_bytes: int = 1 << 30,
        due_entries: int = 1 << 30,
    ) -> None:
        self.server = Server(1, log=log_of(1, size=1))
        self.server.tick()  # it leads, and has committed all that its log holds
        self.machine = Machine()
        for batch in self.server.applied:
            self.machine.apply(batch)
        self._applied = len(self.server.applied)
        self.spoils: Judgement | None = None
        self.snapshots = snapshots
        self.taken: list[SnapshotMeta] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.told = asyncio.Event()
        self.errors: list[object] = []
        asyncio.get_running_loop().set_exception_handler(self._broken)
        self.snapshotter = Snapshotter(
            node=self.server.node,
            machine=self.machine,
            store=self,  # type: ignore[arg-type]
            loop=asyncio.get_running_loop(),
            feed=self._feed,
            tell=self._tell,
            due_bytes=due_bytes,
            due_entries=due_entries,
        )

    def _feed(self, event: Event) -> None:
        effects = self.server.step(event)
        self._apply()
        for judged in of(StateJudged, effects):
            found = self.spoils or judged.judgement
            self.snapshotter.judged(StateJudged(judged.index, found))
        if isinstance(event, SnapshotTaken):
            self.taken.append(event.snapshot)
            self.told.set()

    def _apply(self) -> None:
        """What the log holds and the machine does not; audits begin behind their entries."""
        for batch in self.server.applied[self._applied :]:
            self._applied += 1
            self.machine.apply(batch)
            if batch.kind == BatchKind.AUDIT and read_verdict(batch) is None:
                self.snapshotter.drop_unproven()
                self.snapshotter.begin()

    def _tell(self, kind: str, **facts: Any) -> None:
        self.events.append((kind, facts))
        if kind == "snapshot_failed":
            self.told.set()

    def _broken(self, _loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        self.errors.append(context.get("exception"))
        self.told.set()

    def put(self, key: str, value: bytes = b"v") -> int:
        """Commit and apply it; how much log that is."""
        payload = join_commands(0, 1, [encode_command(Put(key, value, -1))])
        self.server.propose(payload)
        batch = self.server.applied[-1]
        self._apply()
        return len(batch.record)

    def write(self, key: str, value: bytes = b"v") -> None:
        self.snapshotter.applied(self.put(key, value))

    async def next_word(self) -> None:
        """Until a snapshot is taken or has failed."""
        await self.told.wait()
        self.told.clear()
        assert self.errors == []
