"""Exported maps beside the rest of the node: what the log says goes to the thread that writes them.

Nothing at all without `ebpf.enabled` and `ebpf.pin_dir`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from raft_agent.config import Config
from raft_agent.consensus.node import Node
from raft_agent.consensus.types import Role
from raft_agent.machine.machine import Machine

if TYPE_CHECKING:
    from raft_agent.kernel.exporter import Exporter
    from raft_agent.machine.exports import MapChange, Shape

# Keys that are read from the machine in one turn of the loop.
_PIECE = 500

Watcher = Callable[[int, "list[MapChange]"], None]


class ExportSide:
    """`tell` as the agent's events. `status` and `entries` are for the API."""

    def __init__(
        self,
        config: Config,
        node: Node,
        machine: Machine,
        loop: asyncio.AbstractEventLoop,
        tell: Callable[..., None],
    ) -> None:
        self._node = node
        self._machine = machine
        self._loop = loop
        self._tell = tell
        self._bound_ns = config.ebpf.fresh_ms * 1_000_000
        self._beat_s = config.timing.heartbeat_interval_ms / 1000
        pin_dir = config.ebpf.pin_dir if config.ebpf.enabled else None
        self.directory = Path(pin_dir) / config.cluster.name if pin_dir else None
        self._declared_index = 0
        self._exporter: Exporter | None = None
        self._walk: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watchers: list[Watcher] = []

    # --- life

    def start(self) -> None:
        if self.directory is None:
            return
        # An agent without exported maps stays small.
        from raft_agent.kernel.exporter import Exporter  # noqa: PLC0415

        self._exporter = Exporter(self.directory, self._tell_later, self._written)
        self._exporter.start()
        self._declare()
        self._beat()

    async def stop(self) -> None:
        """What was applied is written; the maps stay."""
        if self._timer is not None:
            self._timer.cancel()
        if self._walk is not None:
            self._walk.cancel()
        if self._exporter is not None:
            await self._loop.run_in_executor(None, self._exporter.stop)

    # --- what the node tells

    def applied(self, index: int) -> None:
        """The machine has applied all up to here."""
        exporter = self._exporter
        if exporter is None:
            return
        from raft_agent.kernel.exporter import Change  # noqa: PLC0415

        exports = self._machine.exports
        if exports.declared_index != self._declared_index:
            self._declare()
        elif exports.changes:
            changes, exports.changes = exports.changes, []
            exporter.put(Change(changes, index))

    def adopted(self) -> None:
        """The machine has another state, from a snapshot."""
        if self._exporter is not None:
            self._declare()

    # --- handing over

    def _declare(self) -> None:
        from raft_agent.kernel.exporter import Declare  # noqa: PLC0415

        exports = self._machine.exports
        exports.track(wanted=True)
        self._declared_index = exports.declared_index
        shapes = tuple(exports)
        if self._exporter is not None:
            self._exporter.put(Declare(shapes))
        if self._walk is not None:
            self._walk.cancel()
        self._walk = self._loop.create_task(self._hand_over_all(shapes))

    async def _hand_over_all(self, shapes: tuple[Shape, ...]) -> None:
        """What the maps hold, in pieces; what changes meanwhile follows its key's piece, or is in
        it."""
        from raft_agent.kernel.exporter import Change, Fill  # noqa: PLC0415

        exporter, machine = self._exporter, self._machine
        if exporter is None:
            return
        for shape in shapes:
            after, more = "", True
            while more:
                entries, more = machine.list(shape.export.prefix, _PIECE, after)
                exporter.put(
                    Fill(
                        shape.export.map,
                        [
                            (
                                shape.encode_key(entry.key),
                                shape.encode_value(entry.value, entry.revision),
                            )
                            for entry in entries
                        ],
                    )
                )
                after = entries[-1].key if entries else after
                await asyncio.sleep(0)
        changes, machine.exports.changes = machine.exports.changes, []
        exporter.put(Change(changes, machine.last_applied, is_filled=True))

    def _beat(self) -> None:
        from raft_agent.kernel.exporter import Beat  # noqa: PLC0415

        self._timer = self._loop.call_later(self._beat_s, self._beat)
        if self._exporter is None:
            return
        node = self._node
        as_of_us = node.state.current_as_of_us
        self._exporter.put(
            Beat(
                index=self._machine.last_applied,
                term=node.current_term,
                leader_id=node.leader_id,
                role=_ROLES.get(node.role, 4),
                fresh_until_ns=as_of_us * 1000 + self._bound_ns if as_of_us else 0,
            )
        )

    # --- from the thread

    def _tell_later(self, kind: str, **facts: int | str) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(lambda: self._tell(kind, **facts))

    def _written(self, index: int, changes: list[MapChange]) -> None:
        if self._watchers and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._pass_on, index, changes)

    def _pass_on(self, index: int, changes: list[MapChange]) -> None:
        for watcher in tuple(self._watchers):
            watcher(index, changes)


# enum raft_node_role
_ROLES = {
    Role.FOLLOWER: 0,
    Role.LEADER: 1,
    Role.PRE_CANDIDATE: 2,
    Role.CANDIDATE: 2,
    Role.LEARNER: 3,
}
