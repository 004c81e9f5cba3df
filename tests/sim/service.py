"""What stands between clients and one core: the part of the runtime that answers requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft_agent.consensus.batch import Batch
from raft_agent.consensus.types import (
    ChangeMembership,
    MembershipChanged,
    Propose,
    Proposed,
    Read,
    ReadReady,
    Refused,
    Role,
    TransferDone,
    TransferLeadership,
)
from raft_agent.machine.commands import join_commands
from raft_agent.machine.machine import CommandResult
from raft_agent.machine.results import StatesDisputed
from tests.sim.versions import command_for

if TYPE_CHECKING:
    from tests.sim.calls import Attempt
    from tests.sim.operators import Change
    from tests.sim.process import Process


# Of the only recovery that may be under way.
RECOVERY_TAG = 1 << 40


class Service:
    """Requests that this process has taken on; all are gone when it ends."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._tag = 0
        self._queue: list[Attempt] = []
        self._proposals: dict[int, list[Attempt]] = {}
        self._awaiting: dict[int, tuple[int, list[Attempt]]] = {}
        self._reads: dict[int, Attempt | None] = {}  # None: was answered before the core did
        self._ready: list[tuple[int, Attempt]] = []
        self._changes: dict[int, Change] = {}
        self._is_reading = False
        self._nobodys: set[int] = set()

    # --- requests

    def write(self, attempt: Attempt, *, forwarded: bool = False) -> None:
        """Writes that arrive in the same turn of the loop share a batch."""
        process = self._process
        node = process.node
        if node is None:
            return
        if (
            node.role is not Role.LEADER
            and attempt.call.forward
            and not forwarded
            and node.leader_id
        ):
            process.cluster.forward(process, node.leader_id, attempt)
            return
        if not self._queue:
            process.cluster.clock.after(0, process.run, self._flush, process.boots)
        self._queue.append(attempt)

    def _flush(self, boot: int) -> None:
        process = self._process
        if boot != process.boots:
            return
        attempts, self._queue = self._queue, []
        commands = [command_for(process.machine, attempt.call.command) for attempt in attempts]
        payload = join_commands(process.wall_ms(), len(commands), commands)
        tag = self._next_tag()
        self._proposals[tag] = attempts
        for attempt in attempts:
            attempt.reached_core = True
        process.step(Propose(tag, len(attempts), payload))

    def read(self, attempt: Attempt) -> None:
        tag = self._next_tag()
        self._reads[tag] = attempt
        self._is_reading = True
        self._process.step(Read(tag, attempt.call.lease))
        self._is_reading = False

    def transfer(self, target: int) -> None:
        self._process.step(TransferLeadership(self._next_tag(), target))

    def change(self, change: Change) -> None:
        if not self._process.versions.may_add(change.wanted):
            self._process.cluster.seen["change_refused_version"] += 1
            return
        tag = self._next_tag()
        self._changes[tag] = change
        self._process.step(
            ChangeMembership(tag, change.wanted, change.expected_index, change.forced)
        )

    def nobodys_tag(self) -> int:
        """The tag of a proposal of the host itself, of which nobody wants to hear."""
        tag = self._next_tag()
        self._nobodys.add(tag)
        return tag

    def _next_tag(self) -> int:
        self._tag += 1
        return self._tag

    # --- what the core says

    def proposed(self, effect: Proposed) -> None:
        if effect.tag in self._nobodys:
            self._nobodys.remove(effect.tag)
            return
        attempts = self._proposals.pop(effect.tag)
        self._awaiting[effect.first_index] = (effect.term, attempts)
        for index, attempt in enumerate(attempts, start=effect.first_index):
            attempt.index, attempt.term = index, effect.term

    def refused(self, effect: Refused | TransferDone) -> None:
        seen = self._process.cluster.seen
        if isinstance(effect, TransferDone):
            seen["transfer_done"] += 1
            return
        seen[f"refused_{effect.reason.value}"] += 1
        self._nobodys.discard(effect.tag)
        for attempt in self._proposals.pop(effect.tag, ()):
            attempt.refused()
        read = self._reads.pop(effect.tag, None)
        if read is not None:
            read.refused()
        if effect.tag == RECOVERY_TAG:
            self._process.cluster.refused_recovery(effect.reason)
        change = self._changes.pop(effect.tag, None)
        if change is not None:
            change.refused(effect.reason)

    def membership_changed(self, effect: MembershipChanged) -> None:
        self._changes.pop(effect.tag).done(effect.index)

    def read_ready(self, effect: ReadReady) -> None:
        attempt = self._reads.pop(effect.tag)
        if attempt is None:
            return
        if attempt.call.lease and self._is_reading:
            self._process.cluster.seen["read_by_lease"] += 1
        if effect.index <= self._process.machine.last_applied:
            self._answer_read(attempt)
        else:
            self._ready.append((effect.index, attempt))

    def _answer_read(self, attempt: Attempt) -> None:
        machine = self._process.machine
        if machine.disputed_index:
            attempt.refused()
        elif self._may_answer():
            attempt.index = machine.last_applied
            attempt.answered(machine.get(attempt.call.key))
        else:
            attempt.lost()

    def _may_answer(self) -> bool:
        """Nobody has noticed yet that a bit has turned in this state: what it answers may be wrong,
        so clients leave it alone, and know as little as without an answer."""
        self._process.audits.serves()
        return self._process.audits.flips == 0

    def applied(self, batch: Batch, results: list[CommandResult] | None) -> None:
        awaited = self._awaiting.pop(batch.first_index, None)
        if awaited is not None:
            term, attempts = awaited
            if term == batch.term and results is not None:
                for attempt, result in zip(attempts, results, strict=True):
                    if isinstance(result, StatesDisputed):
                        attempt.reached_core = False
                        attempt.refused()
                    elif self._may_answer():
                        attempt.answered(result)
                    else:
                        attempt.lost()
            else:
                # Another term's batch stands where this one would have: it never will.
                self._process.cluster.seen["proposal_overwritten"] += 1
                for attempt in attempts:
                    attempt.reached_core = False
                    attempt.refused()
        if self._ready:
            self._answer_ready(batch.last_index)

    def took_over(self, index: int) -> None:
        """A snapshot has brought the state machine up to `index`. What came of writes before it
        can't be told any more."""
        for first_index in [first for first in self._awaiting if first <= index]:
            self._process.cluster.seen["result_lost_in_snapshot"] += 1
            for attempt in self._awaiting.pop(first_index)[1]:
                attempt.lost()
        self._answer_ready(index)

    def diverged(self) -> None:
        """Nothing is applied here any more, and no read gets its index: what the core still says
        of those that were passed on to a leader finds nobody."""
        for _, attempts in self._awaiting.values():
            for attempt in attempts:
                attempt.lost()
        for _, attempt in self._ready:
            attempt.refused()
        for tag, asked in self._reads.items():
            if asked is not None:
                asked.refused()
                self._reads[tag] = None
        self._awaiting, self._ready = {}, []

    def _answer_ready(self, index: int) -> None:
        still = []
        for wanted, attempt in self._ready:
            if wanted <= index:
                self._answer_read(attempt)
            else:
                still.append((wanted, attempt))
        self._ready = still

    def lost(self) -> None:
        """The process has ended: its clients see their connections break."""
        asked = (attempt for attempt in self._reads.values() if attempt is not None)
        attempts = [*self._queue, *asked, *(attempt for _, attempt in self._ready)]
        for group in self._proposals.values():
            attempts += group
        for _, group in self._awaiting.values():
            attempts += group
        for attempt in attempts:
            attempt.lost()
