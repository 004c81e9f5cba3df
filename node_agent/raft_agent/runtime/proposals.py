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
from raft_agent.machine.commands import Command, encode_commands, join_commands

Done = Callable[[Outcome], None]

MAX_BATCH_BYTES = 1 << 20
MAX_BATCH_COMMANDS = 4096

_NOTHING = b""

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


class _Group(msgspec.Struct):
    """Commands that were handed over together; `encoded` holds all `count` of them until they are
    proposed."""

    encoded: bytes | memoryview
    count: int
    done: Done


class _Wave(msgspec.Struct):
    """The `count` commands of one batch on their way. `began_ns`: when the core got them, of
    perf_counter."""

    groups: list[_Group]
    count: int
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
        self.problem: Callable[[Sequence[Command]], Failure | None] = lambda _: None
        """Why commands must not come into the log. Set by whoever builds the node."""
        self._gathered: list[_Group] = []
        self._proposed: dict[int, _Wave] = {}
        self._logged: dict[int, list[tuple[int, _Wave]]] = {}
        self.counts = ProposalCounts()
        self._tag = 0
        self._led_before = False

    def add(self, commands: Sequence[Command], done: Done) -> None:
        problem = self.problem(commands)
        if problem is not None:
            self.counts.refused += len(commands)
            self._loop.call_soon(done, problem)
            return
        if not self._gathered:
            self._loop.call_soon(self._flush)
        self._gathered.append(_Group(encode_commands(commands), len(commands), done))

    def add_at_once(self, commands: Sequence[Command], done: Done) -> None:
        """As a batch of their own, in this moment and not at the end of the turn."""
        self._propose([_Group(encode_commands(commands), len(commands), done)], len(commands))

    def _flush(self) -> None:
        gathered, self._gathered = self._gathered, []
        groups: list[_Group] = []
        size = count = 0
        for group in gathered:
            more = len(group.encoded)
            if groups and (
                size + more > MAX_BATCH_BYTES or count + group.count > MAX_BATCH_COMMANDS
            ):
                self._propose(groups, count)
                groups, size, count = [], 0, 0
            groups.append(group)
            size += more
            count += group.count
        if groups:
            self._propose(groups, count)

    def _propose(self, groups: list[_Group], count: int) -> None:
        self._tag += 1
        self._proposed[self._tag] = _Wave(groups, count, time.perf_counter_ns())
        encoded = [group.encoded for group in groups]
        payload = join_commands(time.time_ns() // 1_000_000, count, encoded)
        for group in groups:
            group.encoded = _NOTHING
        self._feed(Propose(self._tag, count, payload))

    @property
    def gathered_count(self) -> int:
        """How many commands wait for the end of this turn of the loop."""
        return sum(group.count for group in self._gathered)

    @property
    def logged_count(self) -> int:
        """How many commands are in the log and not yet applied."""
        return sum(wave.count for waiting in self._logged.values() for _, wave in waiting)

    def owns(self, tag: int) -> bool:
        return tag in self._proposed

    def proposed(self, answer: Proposed) -> None:
        # This node may have led before and lost the batch that it had here; another node may still
        # hold that one and bring it back (Figure 8): only what is applied here decides.
        waiting = self._logged.setdefault(answer.first_index, [])
        waiting.append((answer.term, self._proposed.pop(answer.tag)))

    def refused(self, tag: int, failure: Failure) -> None:
        wave = self._proposed.pop(tag)
        self.counts.refused += wave.count
        _tell(wave.groups, failure)

    def applied(self, batch: Batch, results: Sequence[object] | None) -> None:
        """Answer whoever waits for this batch; what another one took the place of is lost."""
        waiting = self._logged.pop(batch.first_index, ()) if self._logged else ()
        for term, wave in waiting:
            if term == batch.term and results is not None:
                counts = self.counts
                counts.applied += wave.count
                took_us = (time.perf_counter_ns() - wave.began_ns) // 1000
                counts.commits.add(took_us, wave.count)
                start = 0
                for group in wave.groups:
                    stop = start + group.count
                    group.done(Applied(batch.first_index + start, term, results[start:stop]))
                    start = stop
            else:
                self.counts.lost += wave.count
                _tell(wave.groups, LOST)
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
                dropped += wave.count
                _tell(wave.groups, failure)
        return dropped

    def give_up(self, failure: Failure) -> None:
        """The node ends or its disk failed: what is in the log may still be committed by others,
        what was only gathered will not."""
        self.counts.refused += self.gathered_count
        gathered, self._gathered = self._gathered, []
        _tell(gathered, failure)
        unknown = Failure(
            ErrorCode.UNKNOWN_OUTCOME,
            f"{failure.error}; the write may still happen",
            "Read the key back before you write it again",
        )
        for waiting in self._logged.values():
            for _, wave in waiting:
                self.counts.unknown += wave.count
                _tell(wave.groups, unknown)
        self._logged.clear()


def _tell(groups: list[_Group], failure: Failure) -> None:
    for group in groups:
        group.done(failure)
