"""When a snapshot is taken, and how: piece by piece in the loop, written by a thread.

The loop only picks entries, for a moment each turn; a thread encodes, checks and writes them.
While that goes on the state machine applies on: what was not picked yet is remembered as it was.

A snapshot is taken behind an audit entry, and counts only once the members have found that the
state there was a quorum's: a state that has gone wrong in memory never becomes one that this node
starts from, drops its log for, or sends to others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from raft_agent.consensus.node import Node
from raft_agent.consensus.types import (
    UNREADABLE,
    AuditWanted,
    Configuration,
    Event,
    Judgement,
    Role,
    SnapshotMeta,
    SnapshotTaken,
    StateHashed,
    StateJudged,
)
from raft_agent.histogram import Histogram
from raft_agent.machine.audit import StateDigest
from raft_agent.machine.blocks import Portion, encode_block
from raft_agent.machine.machine import Machine
from raft_agent.machine.snapshot import BLOCK_BYTES, SnapshotView
from raft_agent.storage.errors import StorageError, in_words
from raft_agent.storage.snapshots import SnapshotFile
from raft_agent.storage.store import Store

log = logging.getLogger("raft.runtime")

_T = TypeVar("_T")

_RETRY_S = 30.0

# Whenever the thread wants the interpreter back, after a write too, a busy loop has to let go of it
# and stands still until the thread has had it; on a machine with much else to do, until a processor
# is free for the thread. So the thread gets much at once, and seldom.
_BLOCKS_AT_ONCE = 8
_WRITE_BYTES = _BLOCKS_AT_ONCE * BLOCK_BYTES
# For so long the loop picks in one turn.
_PICK_S = 0.0005


class Snapshotter:
    """`due_bytes` and `due_entries`: how much log makes a snapshot due; never less than the last
    snapshot is large, so that writing snapshots costs no more than writing the log.

    `durations`: of the snapshots that were taken since the start; `taken_at`: when the last of them
    was done, in seconds since 1970, None before the first.
    """

    def __init__(
        self,
        *,
        node: Node,
        machine: Machine,
        store: Store,
        loop: asyncio.AbstractEventLoop,
        feed: Callable[[Event], None],
        tell: Callable[..., None],
        due_bytes: int,
        due_entries: int,
    ) -> None:
        self._node = node
        self._machine = machine
        self._store = store
        self._loop = loop
        self._feed = feed
        self._tell = tell
        self._due_bytes = due_bytes
        self._due_entries = due_entries
        self.durations = Histogram()
        self.taken_at: float | None = None
        self._bytes = 0
        self._covered_bytes = 0  # of them, when the one under way began
        self._not_before = 0.0
        self._is_wanted = False
        self._asked_term = 0
        self._task: asyncio.Task[None] | None = None
        self._index = 0  # of the one under way
        self._proof: asyncio.Future[bool] | None = None

    def applied(self, size_bytes: int) -> None:
        """So much of the log was applied; a snapshot may be due."""
        self._bytes += size_bytes
        if self._is_wanted:
            self._ask()
        elif self._task is None and self._is_due():
            self.take()

    def _is_due(self) -> bool:
        snapshot = self._node.state.snapshot
        last_index = snapshot.index if snapshot else 0
        last_bytes = snapshot.size_bytes if snapshot else 0
        if self._bytes >= max(self._due_bytes, last_bytes):
            return True
        entries = self._machine.last_applied - last_index
        return entries >= max(self._due_entries, self._machine.key_count())

    def take(self) -> bool:
        """Take one behind the next audit entry, also of a state of which there is one already;
        whether it will. None is while one is under way, nor for a while after one has failed.
        """
        if self._is_wanted or self._task is not None or self._loop.time() < self._not_before:
            return False
        self._is_wanted = True
        self._ask()
        return True

    def _ask(self) -> None:
        """A leader makes an audit due; others wait for its next."""
        if self._node.role is Role.LEADER and self._asked_term != self._node.current_term:
            self._asked_term = self._node.current_term
            self._feed(AuditWanted())

    # --- behind an audit entry

    @property
    def is_reading(self) -> bool:
        """Whether the state of an earlier entry is still being written."""
        return self._task is not None and self._proof is None

    def begin(self) -> bool:
        """An audit entry was applied: take one of this very state, if one is wanted; whether it
        does, and so tells what the state comes to."""
        index = self._machine.last_applied
        configuration = self._node.configuration_at(index)
        if not self._is_wanted or self._task is not None or configuration is None:
            return False
        self._is_wanted = False
        self._asked_term = 0
        self._covered_bytes = self._bytes
        self._index = index
        view = self._machine.begin_snapshot()
        self._task = self._loop.create_task(self._take(view, configuration))
        self._task.add_done_callback(self._done)
        # One that is given up before its first step closes nothing itself.
        self._task.add_done_callback(lambda _: view.close())
        return True

    def left_out(self) -> None:
        """An audit entry was passed over, because the state of an earlier one is still being read:
        one that is wanted needs another."""
        self._asked_term = 0
        if self._is_wanted:
            self._ask()

    def judged(self, effect: StateJudged) -> None:
        """The members have compared the states behind an entry."""
        if effect.index == self._index:
            self._prove(effect.judgement is Judgement.AGREES)

    def drop_unproven(self) -> None:
        """Nobody will say any more whether the one that waits for it is right."""
        self._prove(False)

    def _prove(self, is_right: bool) -> None:
        if self._proof is not None and not self._proof.done():
            self._proof.set_result(is_right)

    async def stop(self) -> None:
        """Give up the one that is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _done(self, task: asyncio.Task[None]) -> None:
        self._task = self._proof = None
        error = None if task.cancelled() else task.exception()
        if error is None:
            # One that was given up counts too: a leader's snapshot takes the place of that log.
            self._bytes -= self._covered_bytes
            return
        self._not_before = self._loop.time() + _RETRY_S
        if isinstance(error, StorageError | OSError):
            # The log goes on without it: nothing is lost but room.
            self._tell("snapshot_failed", reason=in_words(error))
        else:
            self._loop.call_exception_handler({"message": "a snapshot failed", "exception": error})

    async def _take(self, view: SnapshotView, configuration: tuple[int, Configuration]) -> None:
        index, term = view.header.last_applied, view.header.last_applied_term
        began = time.monotonic()
        draft = _Draft()
        try:
            await self._write(draft, view, lambda: self._create(index, term, configuration))
            # The members may take long, and every change costs more while a view is open.
            view.close()
            self._proof = self._loop.create_future()
            self._feed(StateHashed(index, draft.digest_value, int(draft.worked_s * 1e6)))
            if draft.error is not None:
                raise draft.error
            if draft.file is None or not await self._proof:
                self._covered_bytes = 0
                return
            meta: SnapshotMeta = await self._in_thread(draft.file.finish)
        finally:
            view.close()
            if draft.file is not None:
                await self._in_thread(draft.file.abort)
        took_us = int((time.monotonic() - began) * 1e6)
        self.durations.add(took_us)
        self.taken_at = time.time()
        size = meta.size_bytes
        self._tell("snapshot_taken", index=index, size_bytes=size, took_ms=took_us // 1000)
        self._feed(SnapshotTaken(meta, self._store.snapshots.older_index))

    def _create(
        self, index: int, term: int, configuration: tuple[int, Configuration]
    ) -> SnapshotFile:
        return self._store.snapshots.create(index, term, *configuration)

    async def _write(
        self, draft: _Draft, view: SnapshotView, create: Callable[[], SnapshotFile]
    ) -> None:
        """Fill the draft. What keeps it from being written keeps nobody from reading the state to
        its end."""
        try:
            draft.file = await self._in_thread(create, undo=SnapshotFile.abort)
        except Exception as error:
            draft.error = error
        try:
            while portions := await _pick(view):
                await self._in_thread(partial(draft.add, portions))
            draft.is_whole = True
        except (KeyError, ValueError, TypeError, AttributeError):
            log.exception("the state could not be read after index %d", view.header.last_applied)

    async def _in_thread(
        self, work: Callable[[], _T], *, undo: Callable[[_T], None] | None = None
    ) -> _T:
        """A thread can't be interrupted: who gives up waits until it has come to its end, and has
        nobody who would `undo` what it did.
        """
        future = self._loop.run_in_executor(None, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            if undo is not None and future.exception() is None:
                await self._loop.run_in_executor(None, undo, future.result())
            raise


class _Draft:
    """A snapshot that is being written, and what its state comes to. `error`: why it is not written
    any more."""

    def __init__(self) -> None:
        self.file: SnapshotFile | None = None
        self.error: Exception | None = None
        self.is_whole = False
        self.worked_s = 0.0
        self._digest = StateDigest()

    @property
    def digest_value(self) -> int:
        return self._digest.value if self.is_whole else UNREADABLE

    def add(self, portions: list[Portion]) -> None:
        """In a thread. Few large values are written one by one, so that they are not all in memory
        twice."""
        began = time.thread_time()
        blocks: list[bytes] = []
        size_bytes = 0
        for portion in portions:
            block = encode_block(portion)
            self._digest.add(portion, block)
            blocks.append(block)
            size_bytes += len(block)
            if size_bytes >= _WRITE_BYTES:
                self._write(blocks)
                blocks, size_bytes = [], 0
        self._write(blocks)
        self.worked_s += time.thread_time() - began

    def _write(self, blocks: list[bytes]) -> None:
        if self.file is None or not blocks:
            return
        try:
            self.file.write_blocks(*blocks)
        except Exception as error:
            self.file.abort()
            self.file, self.error = None, error


async def _pick(view: SnapshotView) -> list[Portion]:
    """What the thread gets next; nothing at the end."""
    portions: list[Portion] = []
    until = time.monotonic() + _PICK_S
    while len(portions) < _BLOCKS_AT_ONCE and (portion := view.next_items()) is not None:
        portions.append(portion)
        if time.monotonic() >= until:
            await asyncio.sleep(0)
            until = time.monotonic() + _PICK_S
    return portions
