"""Commands on their way through the log: gathered into batches, answered when applied."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import msgspec

from raft_agent.api.host import Applied, Failure, Outcome
from raft_agent.api.protocol import ErrorCode
from raft_agent.consensus.batch import Batch
from raft_agent.consensus.types import Event, Propose, Proposed
from raft_agent.histogram import Histogram
from raft_agent.machine.commands import join_commands

Done = Callable[[Outcome], None]

MAX_BATCH_BYTES = 1 << 20
MAX_BATCH_COMMANDS = 4096

LOST = Failure(
    ErrorCode.NOT_LEADER,
    "Leadership was lost before the write was replicated; it did not happen",
    "Try again",
)

SKIPPED = Failure(
    ErrorCode.UNKNOWN_OUTCOME,
    "This node fell behind and got a snapshot; the write may have happened",
    "Read the key back before you write it again",
)


class _Wave(msgspec.Struct, gc=False):
    """Commands of one batch on their way. `began_ns`: when the core got them, of perf_counter."""

    dones: list[Done]
    began_ns: int


class ProposalCounts:
    """What became of commands that were proposed here, since the start; all of them end as one of
    these. `refused`: the core took none of it. `lost`: another leader's entries stand there now.
    `unknown`: the node ended or skipped the entries. `commits`: from the proposal to the core until
    the command was committed and applied here.
    """

    __slots__ = ("applied", "commits", "lost", "refused", "unknown")

    def __init__(self) -> None:
        self.applied = self.lost = self.refused = self.unknown = 0
        self.commits = Histogram()


class Proposals:
    """Commands of one turn of the loop become one batch (two, when they are large)."""

    def __init__(self, loop: asyncio.AbstractEventLoop, feed: Callable[[Event], None]) -> None:
        self._loop = loop
        self._feed = feed
        self._gathered: list[tuple[bytes, Done]] = []
        self._proposed: dict[int, _Wave] = {}
        self._logged: dict[int, list[tuple[int, _Wave]]] = {}
        self.counts = ProposalCounts()
        self._tag = 0
        self._led_before = False

    def add(self, command: bytes, done: Done) -> None:
        if not self._gathered:
            self._loop.call_soon(self._flush)
        self._gathered.append((command, done))

    def _flush(self) -> None:
        gathered, self._gathered = self._gathered, []
        commands: list[bytes] = []
        dones: list[Done] = []
        size = 0
        for command, done in gathered:
            if commands and (
                size + len(command) > MAX_BATCH_BYTES or len(commands) == MAX_BATCH_COMMANDS
            ):
                self._propose(commands, dones)
                commands, dones, size = [], [], 0
            commands.append(command)
            dones.append(done)
            size += len(command)
        if commands:
            self._propose(commands, dones)

    def _propose(self, commands: list[bytes], dones: list[Done]) -> None:
        self._tag += 1
        self._proposed[self._tag] = _Wave(dones, time.perf_counter_ns())
        payload = join_commands(time.time_ns() // 1_000_000, commands)
        self._feed(Propose(self._tag, len(commands), payload))

    @property
    def gathered_count(self) -> int:
        """How many commands wait for the end of this turn of the loop."""
        return len(self._gathered)

    @property
    def logged_count(self) -> int:
        """How many commands are in the log and not yet applied."""
        return sum(len(wave.dones) for waiting in self._logged.values() for _, wave in waiting)

    def owns(self, tag: int) -> bool:
        return tag in self._proposed

    def proposed(self, answer: Proposed) -> None:
        # This node may have led before and lost the batch that it had here; another node may still
        # hold that one and bring it back (Figure 8): only what is applied here decides.
        waiting = self._logged.setdefault(answer.first_index, [])
        waiting.append((answer.term, self._proposed.pop(answer.tag)))

    def refused(self, tag: int, failure: Failure) -> None:
        dones = self._proposed.pop(tag).dones
        self.counts.refused += len(dones)
        _tell(dones, failure)

    def applied(self, batch: Batch, results: Sequence[object] | None) -> None:
        """Answer whoever waits for this batch; what another one took the place of is lost."""
        waiting = self._logged.pop(batch.first_index, ()) if self._logged else ()
        for term, wave in waiting:
            dones = wave.dones
            if term == batch.term and results is not None:
                counts = self.counts
                counts.applied += len(dones)
                took_us = (time.perf_counter_ns() - wave.began_ns) // 1000
                counts.commits.add(took_us, len(dones))
                index = batch.first_index
                for done, result in zip(dones, results, strict=True):
                    done(Applied(index, term, result))
                    index += 1
            else:
                self.counts.lost += len(dones)
                _tell(dones, LOST)
        if self._led_before:
            self.counts.lost += self._drop(batch.last_index, LOST)
            self._led_before = bool(self._logged)

    def skipped(self, index: int) -> None:
        """A snapshot took the place of the entries up to `index`: what became of those that this
        node had proposed there can't be told any more."""
        self.counts.unknown += self._drop(index, SKIPPED)

    def stepped_down(self) -> None:
        """From now on another leader's batches may stand where this node's were."""
        self._led_before = bool(self._logged)

    def _drop(self, last_index: int, failure: Failure) -> int:
        """Give up on what is in the log up to `last_index`; how many commands that were."""
        dropped = 0
        for first_index in [first for first in self._logged if first <= last_index]:
            for _, wave in self._logged.pop(first_index):
                dropped += len(wave.dones)
                _tell(wave.dones, failure)
        return dropped

    def give_up(self, failure: Failure) -> None:
        """The node ends or its disk failed: what is in the log may still be committed by others,
        what was only gathered will not."""
        self.counts.refused += len(self._gathered)
        for _, done in self._gathered:
            done(failure)
        self._gathered = []
        unknown = Failure(
            ErrorCode.UNKNOWN_OUTCOME,
            f"{failure.error}; the write may still happen",
            "Read the key back before you write it again",
        )
        for waiting in self._logged.values():
            for _, wave in waiting:
                self.counts.unknown += len(wave.dones)
                _tell(wave.dones, unknown)
        self._logged.clear()


def _tell(dones: list[Done], failure: Failure) -> None:
    for done in dones:
        done(failure)
