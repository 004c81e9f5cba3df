"""Commands on their way through the log: gathered into batches, answered when applied."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from raft_agent.api.host import Applied, Failure, Outcome
from raft_agent.api.protocol import ErrorCode
from raft_agent.consensus.batch import Batch
from raft_agent.consensus.types import Event, Propose, Proposed
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


class Proposals:
    """Commands of one turn of the loop become one batch (two, when they are large)."""

    def __init__(self, loop: asyncio.AbstractEventLoop, feed: Callable[[Event], None]) -> None:
        self._loop = loop
        self._feed = feed
        self._gathered: list[tuple[bytes, Done]] = []
        self._proposed: dict[int, list[Done]] = {}
        self._logged: dict[int, list[tuple[int, list[Done]]]] = {}
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
        self._proposed[self._tag] = dones
        payload = join_commands(time.time_ns() // 1_000_000, commands)
        self._feed(Propose(self._tag, len(commands), payload))

    def owns(self, tag: int) -> bool:
        return tag in self._proposed

    def proposed(self, answer: Proposed) -> None:
        # This node may have led before and lost the batch that it had here; another node may still
        # hold that one and bring it back (Figure 8): only what is applied here decides.
        waiting = self._logged.setdefault(answer.first_index, [])
        waiting.append((answer.term, self._proposed.pop(answer.tag)))

    def refused(self, tag: int, failure: Failure) -> None:
        _tell(self._proposed.pop(tag), failure)

    def applied(self, batch: Batch, results: Sequence[object] | None) -> None:
        """Answer whoever waits for this batch; what another one took the place of is lost."""
        waiting = self._logged.pop(batch.first_index, ()) if self._logged else ()
        for term, dones in waiting:
            if term == batch.term and results is not None:
                index = batch.first_index
                for done, result in zip(dones, results, strict=True):
                    done(Applied(index, term, result))
                    index += 1
            else:
                _tell(dones, LOST)
        if self._led_before:
            self._drop(batch.last_index, LOST)
            self._led_before = bool(self._logged)

    def skipped(self, index: int) -> None:
        """A snapshot took the place of the entries up to `index`: what became of those that this
        node had proposed there can't be told any more."""
        self._drop(index, SKIPPED)

    def stepped_down(self) -> None:
        """From now on another leader's batches may stand where this node's were."""
        self._led_before = bool(self._logged)

    def _drop(self, last_index: int, failure: Failure) -> None:
        for first_index in [first for first in self._logged if first <= last_index]:
            for _, dones in self._logged.pop(first_index):
                _tell(dones, failure)

    def give_up(self, failure: Failure) -> None:
        """The node ends or its disk failed: what is in the log may still be committed by others,
        what was only gathered will not."""
        for _, done in self._gathered:
            done(failure)
        self._gathered = []
        unknown = Failure(
            ErrorCode.UNKNOWN_OUTCOME,
            f"{failure.error}; the write may still happen",
            "Read the key back before you write it again",
        )
        for waiting in self._logged.values():
            for _, dones in waiting:
                _tell(dones, unknown)
        self._logged.clear()


def _tell(dones: list[Done], failure: Failure) -> None:
    for done in dones:
        done(failure)
