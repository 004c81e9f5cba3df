"""Exported maps beside the rest of the node: what the log says goes to the thread that writes them.

Nothing at all without `ebpf.enabled` and `ebpf.pin_dir`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from raft_agent.api import protocol
from raft_agent.api.host import Failure
from raft_agent.api.protocol import ErrorCode
from raft_agent.config import Config
from raft_agent.consensus.node import Node
from raft_agent.consensus.types import Role
from raft_agent.machine.machine import Machine
from raft_agent.platform import boot_time_ns

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

    # --- what it says

    def listing(self) -> protocol.ExportListResult:
        exporter = self._exporter
        exports = self._machine.exports
        if exporter is None:
            state, reason = "off", "ebpf.enabled and ebpf.pin_dir are not both set at this node"
            status, problems = None, {}
        else:
            status, problems = exporter.status, exporter.problems
            state = _STATES.get(status.state, "degraded")
            reason = "; ".join(problems.values())
        fresh_ns = 0 if status is None else status.fresh_until_ns - boot_time_ns()
        return protocol.ExportListResult(
            state,
            reason,
            0 if status is None else status.applied_index,
            max(fresh_ns, 0) // 1_000_000,
            [
                protocol.ExportInfo(
                    **msgspec.structs.asdict(shape.export),
                    version=shape.version,
                    entries=exports.count(shape.export.map),
                    path=self._path_of(shape),
                    problem=problems.get(shape.export.map, ""),
                )
                for shape in exports
            ],
        )

    def _path_of(self, shape: Shape) -> str:
        if self.directory is None:
            return ""
        return str(self.directory / f"{shape.export.map}_v{shape.version}")

    def dump(
        self,
        name: str,
        limit: int,
        done: Callable[[protocol.ExportDumpResult | Failure], None],
    ) -> None:
        """What the kernel has in the map."""
        shape = self._shape(name)
        if isinstance(shape, Failure):
            done(shape)
            return
        from raft_agent.kernel.exporter import Ask  # noqa: PLC0415

        def answered(found: list[tuple[bytes, bytes]] | str) -> None:
            self._loop.call_soon_threadsafe(self._dumped, shape, limit, found, done)

        assert self._exporter is not None  # noqa: S101  # _shape has seen to it
        self._exporter.put(Ask(name, answered))

    def _dumped(
        self,
        shape: Shape,
        limit: int,
        found: list[tuple[bytes, bytes]] | str,
        done: Callable[[protocol.ExportDumpResult | Failure], None],
    ) -> None:
        if isinstance(found, str):
            done(Failure(ErrorCode.REFUSED, f"The map {shape.export.map} can't be read: {found}"))
            return
        exporter = self._exporter
        entries = [
            protocol.ExportEntry(shape.text_of(key), *shape.decode_value(value))
            for key, value in found[:limit]
        ]
        index = 0 if exporter is None else exporter.status.applied_index
        done(protocol.ExportDumpResult(shape.export.map, index, entries, len(found) > limit))

    def watch(
        self, name: str, on_event: Callable[[protocol.ExportEvent], None]
    ) -> Callable[[], None] | Failure:
        """Until the returned function is called."""
        shape = self._shape(name)
        if isinstance(shape, Failure):
            return shape

        def watcher(index: int, changes: list[MapChange]) -> None:
            for change in changes:
                if change.map == name:
                    on_event(_event(shape, change, index))

        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    def _shape(self, name: str) -> Shape | Failure:
        shape = self._machine.exports.get(name)
        if shape is None:
            return Failure(
                ErrorCode.KEY_NOT_FOUND,
                f"No map {name} is exported",
                "What is exported: raftctl export list",
            )
        if self._exporter is None:
            return Failure(
                ErrorCode.REFUSED,
                "This node keeps no exported maps",
                "Set ebpf.enabled and ebpf.pin_dir in its raft.toml, and start it again",
            )
        return shape

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


def _event(shape: Shape, change: MapChange, index: int) -> protocol.ExportEvent:
    key = shape.text_of(change.key)
    if change.value is None:
        return protocol.ExportEvent("delete", key, b"", 0, index)
    value, revision = shape.decode_value(change.value)
    return protocol.ExportEvent("put", key, value, revision, index)


# enum raft_export_state
_STATES = {0: "filling", 1: "ready", 2: "degraded"}
# enum raft_node_role
_ROLES = {
    Role.FOLLOWER: 0,
    Role.LEADER: 1,
    Role.PRE_CANDIDATE: 2,
    Role.CANDIDATE: 2,
    Role.LEARNER: 3,
}
