"""Exported maps beside the rest of the node: what the log says goes to the thread that writes them.

Nothing at all without `ebpf.enabled` and `ebpf.pin_dir`.
"""

from __future__ import annotations

import asyncio
import logging
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
from raft_agent.kernel.export_jobs import Ask
from raft_agent.machine.machine import Machine
from raft_agent.platform import boot_time_ns
from raft_agent.runtime.export_feed import ExportFeed
from raft_agent.runtime.export_seeds import ExportSeeds, Propose

if TYPE_CHECKING:
    from raft_agent.kernel.exporter import Exporter
    from raft_agent.machine.exports import MapChange, Shape

log = logging.getLogger("raft.runtime")

_LOOK_AGAIN_S = 0.01


class _Watcher(msgspec.Struct, frozen=True):
    map: str
    on_event: Callable[[protocol.ExportEvent], None]


class ExportSide:
    """`tell` as the agent's events; `is_fit`: nothing is known to be wrong with the state that the
    machine holds. `listing`, `dump` and `watch` are for the API.
    """

    def __init__(
        self,
        config: Config,
        *,
        node: Node,
        machine: Machine,
        propose: Propose,
        is_fit: Callable[[], bool],
        loop: asyncio.AbstractEventLoop,
        tell: Callable[..., None],
    ) -> None:
        self._seeds = ExportSeeds(
            config.exports, node=node, machine=machine, propose=propose, loop=loop, tell=tell
        )
        self._is_fit = is_fit
        self._node = node
        self._machine = machine
        self._loop = loop
        self._tell = tell
        self._bound_ns = config.ebpf.fresh_ms * 1_000_000
        self._beat_s = config.timing.heartbeat_interval_ms / 1000
        pin_dir = config.ebpf.pin_dir if config.ebpf.enabled else None
        self.directory = Path(pin_dir) / config.cluster.name if pin_dir else None
        self._exporter: Exporter | None = None
        self._feed: ExportFeed | None = None
        self._walk: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watchers: list[_Watcher] = []

    # --- life

    def start(self) -> None:
        if self.directory is None:
            return
        # An agent without exported maps stays small.
        from raft_agent.kernel.exporter import Exporter  # noqa: PLC0415

        exporter = self._exporter = Exporter(self.directory, self)
        self._feed = ExportFeed(
            self._machine,
            put=exporter.put,
            done=lambda: exporter.done,
            is_current=lambda: self._current_as_of_us() > 0,
            tell=self._tell,
        )
        exporter.start()
        self._beat()

    async def stop(self) -> None:
        """What was applied is written; the maps stay."""
        self._seeds.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._walk is not None:
            self._walk.cancel()
        if self._feed is not None:
            self._feed.stop()
        if self._exporter is not None:
            await self._loop.run_in_executor(None, self._exporter.stop)

    # --- what the node tells

    def applied(self, index: int) -> None:
        """The machine has applied all up to here."""
        self._seeds.applied()
        if self._feed is not None:
            self._feed.applied(index)
            self._walk_on()

    def role(self, leads: bool) -> None:
        """Whether this node leads from now on."""
        self._seeds.role(leads)

    def adopted(self) -> None:
        """The machine has another state, from a snapshot."""
        if self._feed is not None:
            self._feed.adopted()
            self._walk_on()

    def _walk_on(self) -> None:
        """Have the rest of what maps hold handed over, when there is some."""
        feed = self._feed
        if feed is None or not feed.has_more or (self._walk and not self._walk.done()):
            return
        self._walk = self._loop.create_task(_hand_over(feed))
        self._walk.add_done_callback(self._has_handed_over)

    def _has_handed_over(self, walk: asyncio.Task[None]) -> None:
        if not walk.cancelled() and walk.exception() is not None:
            # Nothing is fresh then, and no map is at an index.
            log.error("the exported maps can't be filled", exc_info=walk.exception())
            self._tell("export_degraded", map="all", reason=f"a fault: {walk.exception()}")

    def _beat(self) -> None:
        self._timer = self._loop.call_later(self._beat_s, self._beat)
        if self._feed is None:
            return
        node = self._node
        as_of_us = self._current_as_of_us()
        self._feed.beat(
            term=node.current_term,
            leader_id=node.leader_id,
            role=_ROLES.get(node.role, 4),
            fresh_until_ns=as_of_us * 1000 + self._bound_ns if as_of_us else 0,
        )
        self._walk_on()

    def _current_as_of_us(self) -> int:
        """The moment whose acknowledged writes the machine has, 0 when none is known. A state that
        differs from the others' may be of any moment, and is behind what the node has committed."""
        return self._node.state.current_as_of_us if self._is_fit() else 0

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

        def answered(found: list[tuple[bytes, bytes]] | str, index: int) -> None:
            result = _dumped(shape, limit, found, index)
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(done, result)

        assert self._exporter is not None  # noqa: S101  # _shape has seen to it
        self._exporter.put(Ask(name, limit + 1, answered))

    def watch(
        self, name: str, on_event: Callable[[protocol.ExportEvent], None]
    ) -> Callable[[], None] | Failure:
        """Until the returned function is called."""
        shape = self._shape(name)
        if isinstance(shape, Failure):
            return shape
        watcher = _Watcher(name, on_event)
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

    # --- what the thread tells

    def found(self, index: int) -> None:
        self._call(self._was_found, index)

    def happened(self, kind: str, **facts: int | str) -> None:
        self._call(lambda: self._tell(kind, **facts))

    def written(self, index: int, changes: list[tuple[Shape, MapChange]]) -> None:
        if self._watchers:
            self._call(self._pass_on, index, changes)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    def _was_found(self, index: int) -> None:
        if self._feed is not None:
            self._feed.found(index)
            self._walk_on()

    def _pass_on(self, index: int, changes: list[tuple[Shape, MapChange]]) -> None:
        for watcher in tuple(self._watchers):
            for shape, change in changes:
                if shape.export.map == watcher.map:
                    watcher.on_event(_event(shape, change, index))


async def _hand_over(feed: ExportFeed) -> None:
    """A piece in each turn of the loop, and none while too much waits."""
    while feed.has_more:
        feed.step()
        await asyncio.sleep(0)
        while feed.waiting > feed.few_waiting:
            await asyncio.sleep(_LOOK_AGAIN_S)


def _dumped(
    shape: Shape, limit: int, found: list[tuple[bytes, bytes]] | str, index: int
) -> protocol.ExportDumpResult | Failure:
    name = shape.export.map
    if isinstance(found, str):
        return Failure(
            ErrorCode.REFUSED,
            f"The map {name} can't be read: {found}",
            "See what becomes of it: raftctl export list; another member may have it whole",
        )
    entries = [
        protocol.ExportEntry(shape.text_of(key), *shape.decode_value(value))
        for key, value in found[:limit]
    ]
    return protocol.ExportDumpResult(name, index, entries, len(found) > limit)


def _event(shape: Shape, change: MapChange, index: int) -> protocol.ExportEvent:
    key = shape.text_of(change.key)
    if change.value is None:
        return protocol.ExportEvent("delete", key, b"", 0, index)
    value, revision = shape.decode_value(change.value)
    return protocol.ExportEvent("put", key, value, revision, index)


# enum raft_export_state
_STATES = {0: "filling", 1: "ready", 2: "degraded", 3: "filling"}
# enum raft_node_role
_ROLES = {
    Role.FOLLOWER: 0,
    Role.LEADER: 1,
    Role.PRE_CANDIDATE: 2,
    Role.CANDIDATE: 2,
    Role.LEARNER: 3,
}
