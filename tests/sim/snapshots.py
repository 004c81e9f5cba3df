"""What a process does with snapshots: takes, sends and receives them, and starts from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from raft_agent.consensus.generations import generation_of
from raft_agent.consensus.types import (
    CompactLog,
    Configuration,
    InstallSnapshot,
    ReadSnapshot,
    SnapshotInstalled,
    SnapshotRead,
    SnapshotTaken,
    SnapshotWritten,
    WriteSnapshot,
)
from raft_agent.machine.blocks import encode_block
from raft_agent.machine.machine import Machine
from raft_agent.machine.snapshot import SnapshotView
from tests.sim.shelf import Stored, stored_of

if TYPE_CHECKING:
    from tests.sim.process import Process


class Snapshots:
    """One process's."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._clock = process.cluster.clock
        self._seen = process.cluster.seen
        self._is_taking = False

    def begin(self) -> None:
        """The process starts: what was under way is forgotten."""
        self._is_taking = False

    def _later(self, action: Callable[..., None], *args: Any) -> None:
        """In this process, when the disk has done something; never after another start."""
        process = self._process
        delay_us = process.disk.latency_us()
        self._clock.after(delay_us, process.run, self._now, process.boots, action, args)

    def _now(self, boot: int, action: Callable[..., None], args: tuple[Any, ...]) -> None:
        if boot == self._process.boots:
            action(*args)

    # --- own ones

    def applied(self, index: int) -> None:
        """Take one when enough was applied since the last. Audits alone make none due, or they
        would go on for ever where two or three entries do."""
        process = self._process
        every = process.cluster.options.snapshot_every
        newest = process.disk.shelf.newest_index
        if every and index - newest - process.audits.entries_behind(newest) >= every:
            self.take()

    def take(self) -> None:
        """Take one now, unless one is under way or there is a later one."""
        process = self._process
        node, machine = process.node, process.machine
        index = machine.last_applied
        if process.audits.are_on:
            process.audits.want_snapshot()
            return
        in_force = node.configuration_at(index) if node is not None else None
        if self._is_taking or in_force is None or index < process.disk.shelf.newest_index:
            return
        self._is_taking = True
        process.cluster.checks.has_state(process, index, machine.digest())
        at = (index, machine.last_applied_term)
        self._go_on(process.begin_snapshot(), at, in_force, [])

    def _go_on(
        self,
        view: SnapshotView,
        at: tuple[int, int],
        in_force: tuple[int, Configuration],
        blocks: list[bytes],
    ) -> None:
        """One piece; others are applied before the next."""
        portion = view.next_items()
        if portion is not None:
            blocks.append(encode_block(portion))
            self._later(self._go_on, view, at, in_force, blocks)
            return
        view.close()
        self.keep(stored_of(*at, in_force, blocks))

    def keep(self, stored: Stored) -> None:
        """Put one that is complete, and right, on the disk."""
        process = self._process
        if stored.meta.index < process.disk.shelf.newest_index:
            return
        process.cluster.faults.writes(process, cuts=False)
        process.disk.keep(stored, self._kept)

    def _kept(self, stored: Stored | None) -> None:
        if stored is None:
            self._is_taking = False
        else:
            self._later(self._taken, stored)

    def _taken(self, stored: Stored) -> None:
        self._is_taking = False
        self._seen["snapshot_taken"] += 1
        self._process.step(SnapshotTaken(stored.meta, self._process.disk.shelf.older_index))

    def compact(self, effect: CompactLog) -> None:
        self._process.cluster.checks.compacting(self._process, effect.upto_index)
        self._process.disk.compact(effect)

    # --- those that are sent and received

    def read(self, effect: ReadSnapshot) -> None:
        stored = self._process.disk.shelf.find(effect.index)
        data = stored.data[effect.offset : effect.offset + effect.max_bytes] if stored else b""
        answer = SnapshotRead(effect.peer, effect.index, effect.offset, data)
        self._later(self._process.step, answer)

    def write(self, effect: WriteSnapshot) -> None:
        self._seen["snapshot_chunk_written"] += 1
        self._later(self._write, effect)

    def _write(self, effect: WriteSnapshot) -> None:
        offset = self._process.disk.shelf.write(effect)
        self._process.step(SnapshotWritten(effect.index, offset))

    def install(self, effect: InstallSnapshot) -> None:
        self._process.disk.install(effect)
        self._process.cluster.faults.writes(self._process, cuts=True)

    def installed(self, outcome: tuple[int, Stored | None]) -> None:
        """The disk is through with it: now the state machine is built anew."""
        index, stored = outcome
        if stored is None:
            self._process.step(SnapshotInstalled(index, None))
        else:
            self._later(self._take_over, stored)

    def _take_over(self, stored: Stored) -> None:
        process = self._process
        process.machine.adopt(restored(process, stored))
        process.audits.took_over()
        process.exports.adopted()
        process.disk.took_over()
        process.cluster.version_checks.applied(process, None)
        process.cluster.checks.took_over(process, stored.meta)
        process.service.took_over(stored.meta.index)
        process.step(SnapshotInstalled(stored.meta.index, stored.meta))


def restored(process: Process, stored: Stored) -> Machine:
    """The state machine that a snapshot holds; it must be the one that all others had there."""
    machine = process.program.restore(stored.blocks())
    machine.begin_behind(generation_of(stored.meta.configuration).floor)
    process.cluster.checks.has_state(process, stored.meta.index, machine.digest())
    return machine
