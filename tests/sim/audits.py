"""A process whose state may have gone wrong: how it reads its own for an audit, and what must hold.

The checks know which bits have turned. They never ask the core whether it has noticed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import structs

from raft_agent.consensus.batch import Batch, BatchKind
from raft_agent.consensus.types import (
    AuditWanted,
    Configuration,
    Judgement,
    Role,
    StateHashed,
    StateJudged,
    read_verdict,
)
from raft_agent.machine.audit import StateDigest
from raft_agent.machine.blocks import encode_block
from raft_agent.machine.snapshot import SnapshotView
from tests.sim.shelf import Stored, stored_of
from tests.sim.violation import require

if TYPE_CHECKING:
    from tests.sim.process import Process

_OPERATOR_US = 300_000


class _Reading:
    """A state that is being read; `blocks` of a snapshot, when one is wanted, else None."""

    def __init__(self, process: Process, view: SnapshotView, *, wanted: bool) -> None:
        self.view = view
        self.flips = process.audits.flips
        self.digest = StateDigest()
        self.blocks: list[bytes] | None = [] if wanted else None


class Audits:
    """One process's. `flips`: how many bits have turned in its memory since it was last known to
    be right; 0: it is."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._rng = process.cluster.rng(f"audits/{process.index}")
        self.flips = 0
        self._disputes_known: set[int] = set()
        self.begin()

    @property
    def are_on(self) -> bool:
        return self._process.cluster.options.settings.audit_interval_us > 0

    def begin(self) -> None:
        """The process starts, with a state that it has read from its disk."""
        self.flips = 0
        self._entries: list[int] = []
        self._wants_snapshot = False
        self._reading: _Reading | None = None
        self._read: dict[int, tuple[int, Stored | None]] = {}
        self._flips_before: dict[int, int] = {}

    def took_over(self) -> None:
        """A leader's snapshot is the state now."""
        self.flips = 0
        self._reading = None
        self._read = {}
        self._flips_before = {}

    # --- a bit turns

    def flip(self) -> bool:
        """Have a key's value go bad in memory, as no other process's does; whether there was one.
        Only values, because what the leader proposes by itself follows from the rest; and none
        that transactions, leases and exported maps have to do with, of which the first process
        that applies a batch tells what came of it."""
        machine = self._process.machine
        keys = sorted(key for key in machine._entries if not key.startswith(("t", "x")))
        if not keys or self._process.node is None or self._is_known():
            return False
        key = self._rng.choice(keys)
        wrong = b"\xff" + self._rng.randbytes(8)
        machine._entries[key] = structs.replace(machine._entries[key], value=wrong)
        self.flips += 1
        return True

    def _is_known(self) -> bool:
        node = self._process.node
        return node is not None and node.state.diverged_index > 0

    # --- the host's part

    def entries_behind(self, index: int) -> int:
        """How many audit entries were applied behind that one."""
        self._entries = [entry for entry in self._entries if entry > index]
        return len(self._entries)

    def want_snapshot(self) -> None:
        self._wants_snapshot = True
        self._process.step(AuditWanted())

    def applied(self, batch: Batch) -> None:
        if batch.kind != BatchKind.AUDIT:
            return
        self._entries.append(batch.last_index)
        if read_verdict(batch) is not None:
            return
        if self._reading is not None or not self.are_on:
            return
        process = self._process
        index = machine_index = process.machine.last_applied
        if self.flips == 0:
            process.cluster.checks.has_state(process, index, process.machine.digest())
        in_force = process.node.configuration_at(index) if process.node is not None else None
        view = process.begin_snapshot()
        wanted, self._wants_snapshot = self._wants_snapshot, False
        self._reading = _Reading(process, view, wanted=wanted)
        at = (machine_index, process.machine.last_applied_term)
        self._go_on(process.boots, self._reading, at, in_force)

    def _go_on(
        self,
        boot: int,
        reading: _Reading,
        at: tuple[int, int],
        in_force: tuple[int, Configuration] | None,
    ) -> None:
        """One piece; others are applied before the next."""
        process = self._process
        if boot != process.boots or reading is not self._reading:
            reading.view.close()
            return
        portion = reading.view.next_items(self._rng.choice((1, 3, 20)))
        if portion is not None:
            block = encode_block(portion)
            reading.digest.add(portion, block)
            if reading.blocks is not None:
                reading.blocks.append(block)
            delay_us = process.disk.latency_us()
            process.cluster.clock.after(
                delay_us, process.run, self._go_on, boot, reading, at, in_force
            )
            return
        reading.view.close()
        self._reading = None
        self._done(reading, at, in_force)

    def _done(
        self,
        reading: _Reading,
        at: tuple[int, int],
        in_force: tuple[int, Configuration] | None,
    ) -> None:
        process, index = self._process, at[0]
        stored = None
        if reading.blocks is not None and in_force is not None:
            stored = stored_of(*at, in_force, reading.blocks)
        digest = reading.digest.value
        if self.flips == 0:
            process.cluster.checks.has_digest(process, index, digest)
        self._read = {index: (digest, stored)}
        self._flips_before[index] = reading.flips
        process.step(StateHashed(index, digest, 0))

    def judged(self, effect: StateJudged) -> None:
        process = self._process
        process.cluster.seen[f"state_{effect.judgement.value}"] += 1
        digest, stored = self._read.pop(effect.index, (0, None))
        flips_before = self._flips_before.pop(effect.index, 0)
        if effect.judgement is Judgement.AGREES:
            process.cluster.checks.agreed(process, effect.index, digest)
            if flips_before == self.flips:
                self.flips = 0  # what had gone wrong was written anew before it was read
            if stored is not None:
                process.snapshots.keep(stored)
            return
        if effect.judgement is Judgement.DIFFERS:
            process.service.diverged()
        elif effect.index in self._disputes_known:
            return  # it was rebuilt for that one, and reads of it in its log again
        else:
            self._disputes_known.add(effect.index)
        delay_us = int(self._rng.random() * _OPERATOR_US)
        process.cluster.clock.after(delay_us, self._rebuild, process.boots)

    def _rebuild(self, boot: int) -> None:
        """What `raftctl rebuild` does: the node starts anew from its disk. Where nobody knows whose
        state is right, people do so with one node after the other."""
        process = self._process
        if process.boots == boot and process.node is not None:
            process.cluster.seen["rebuilt"] += 1
            process.cluster.faults.crash(process, kill=True)

    # --- what must hold

    def serves(self) -> None:
        """The process answers a client from its state."""
        process = self._process
        require(not self._is_known(), "a state is served that is known to be wrong", process)
        require(
            process.machine.disputed_index == 0,
            "a state is served while nobody knows whose is right",
            process,
        )

    def stepped(self) -> None:
        node = self._process.node
        if node is not None and node.state.diverged_index:
            require(
                node.role is not Role.LEADER,
                "a node leads whose state is known to be wrong",
                self._process,
            )
