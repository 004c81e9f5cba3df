"""Reads the whole state behind each audit entry, a little at a time, and tells the core what it
comes to; and what follows for this node when the members have compared (`consensus.audit`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable

from raft_agent.api.host import Failure
from raft_agent.api.protocol import ErrorCode
from raft_agent.consensus.batch import Batch
from raft_agent.consensus.node import Node
from raft_agent.consensus.types import (
    UNREADABLE,
    Event,
    Judgement,
    StateHashed,
    StateJudged,
    read_verdict,
)
from raft_agent.machine.audit import StateDigest
from raft_agent.machine.blocks import encode_block
from raft_agent.machine.machine import Machine
from raft_agent.machine.snapshot import SnapshotView
from raft_agent.runtime.snapshotter import Snapshotter

log = logging.getLogger("raft.runtime")

# Keys that are read without a pause; some tenths of a millisecond.
_SLICE_ITEMS = 250
# The loop has the rest of the time for others: reading takes one part in so many.
_SHARE = 20


class Auditor:
    """`judgements`: what came of comparing, since the start; `agreed_index`: the newest entry
    behind which this node's state was a quorum's."""

    def __init__(
        self,
        *,
        node: Node,
        machine: Machine,
        snapshotter: Snapshotter,
        loop: asyncio.AbstractEventLoop,
        feed: Callable[[Event], None],
    ) -> None:
        self._node = node
        self._machine = machine
        self._snapshotter = snapshotter
        self._loop = loop
        self._feed = feed
        self._task: asyncio.Task[None] | None = None
        self.judgements: Counter[str] = Counter()
        self.agreed_index = 0

    def applied(self, batch: Batch) -> None:
        """An audit entry was applied. Who still reads behind an earlier one leaves this one out."""
        if read_verdict(batch) is not None:
            return
        if self._task is not None or self._snapshotter.is_reading:
            self._snapshotter.left_out()
            return
        self._snapshotter.drop_unproven()
        if not self._snapshotter.begin():
            index, view = batch.last_index, self._machine.begin_snapshot()
            self._task = task = self._loop.create_task(self._read(index, view))
            task.add_done_callback(lambda _: self._ended(task, view))

    def judged(self, effect: StateJudged) -> None:
        """The members have compared."""
        self.judgements[effect.judgement.value] += 1
        if effect.judgement is Judgement.AGREES:
            self.agreed_index = effect.index
        self._snapshotter.judged(effect)

    def stop(self) -> None:
        """Give up what is being read: the state is about to be another one."""
        if self._task is not None:
            self._task.cancel()

    def unfit(self) -> Failure | None:
        """Why nothing may be read from this node's state, nor written through it; None: it may."""
        return unfit(self._node, self._machine)

    def _ended(self, task: asyncio.Task[None], view: SnapshotView) -> None:
        # A task that is cancelled before its first step comes to none of its own `finally`.
        view.close()
        if self._task is task:
            self._task = None

    async def _read(self, index: int, view: SnapshotView) -> None:
        digest, worked_s = StateDigest(), 0.0
        value = UNREADABLE
        try:
            while True:
                began = time.perf_counter()
                portion = view.next_items(_SLICE_ITEMS)
                if portion is None:
                    break
                digest.add(portion, encode_block(portion))
                took_s = time.perf_counter() - began
                worked_s += took_s
                await asyncio.sleep((_SHARE - 1) * took_s)
            value = digest.value
        except Exception:
            # What is in memory does not fit together any more; that is for the members to judge.
            log.exception("the state could not be read after index %d", index)
        finally:
            view.close()
            self._task = None
        self._feed(StateHashed(index, value, int(worked_s * 1e6)))


def unfit(node: Node, machine: Machine) -> Failure | None:
    """See `Auditor.unfit`."""
    diverged_index = node.state.diverged_index
    if diverged_index:
        return Failure(
            ErrorCode.STATE_DIFFERS,
            f"This node's state differs from the other members' (found at index {diverged_index}); "
            "it serves nothing until it is rebuilt",
            "Use another member, and here run: raftctl rebuild",
        )
    if machine.disputed_index:
        return Failure(
            ErrorCode.STATES_DISPUTED,
            "No majority of the members has equal states (found at index "
            f"{machine.disputed_index}): nothing is read or written until one has",
            "Bring missing members back, then rebuild one member after the other, each with: "
            "raftctl rebuild; raftctl doctor --cluster compares again",
        )
    return None
