"""The core at work: events in, effects out, timers in between.

Everything here runs in the event loop. Disk work happens in the store's threads, and comes back as
events.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, TypeVar

from raft_agent.consensus.batch import Batch
from raft_agent.consensus.node import Node
from raft_agent.consensus.types import (
    Abandon,
    AppendLog,
    Applied,
    Apply,
    CompactLog,
    ConfigurationChanged,
    Effect,
    Event,
    FoundCluster,
    InstallSnapshot,
    LeaderStamp,
    LogPersisted,
    LogRead,
    MembershipChanged,
    Note,
    Proposed,
    ReadLog,
    ReadReady,
    ReadSnapshot,
    Received,
    Recovered,
    Refused,
    Role,
    RoleChanged,
    SaveVote,
    Send,
    SnapshotInstalled,
    SnapshotMeta,
    SnapshotRead,
    SnapshotWritten,
    StateJudged,
    StorageFailed,
    TimerExpired,
    TransferDone,
    VotePersisted,
    WriteSnapshot,
)
from raft_agent.platform import BOOT_CLOCK
from raft_agent.storage.errors import StorageError, in_words
from raft_agent.storage.files import shortage
from raft_agent.storage.store import StorageFailure, Store
from raft_agent.transport.transport import Transport

log = logging.getLogger("raft.consensus")

_T = TypeVar("_T")

# An apply of this many bytes gives the sockets a turn before the next one.
_LONG_APPLY_BYTES = 256 << 10
# A tick that is later than this was not the loop's usual jitter: the process stood still.
_STALL_US = 20_000
# A busy machine makes shorter ones often, and nobody notices.
_LONG_STALL_US = 100_000


Answer: TypeAlias = Proposed | Refused | ReadReady | TransferDone | MembershipChanged | Recovered


class Excuses(enum.Enum):
    """What an election timer asks before it lets silence count. Only tests that compare leave
    something out: with STAMP the sockets get no turn and are not asked."""

    ALL = "all"
    STAMP = "stamp"
    NONE = "none"


class Observer(Protocol):
    """What the engine tells to the rest of the runtime, in the loop."""

    def on_apply(self, batch: Batch) -> None: ...

    def on_applied(self, index: int) -> None: ...

    def on_answer(self, answer: Answer) -> None: ...

    def on_role(self, change: RoleChanged) -> None: ...

    def on_configuration(self, change: ConfigurationChanged) -> None: ...

    def on_snapshot_durable(self, snapshot: SnapshotMeta, restored: Callable[[], None]) -> None:
        """A leader's snapshot has taken the place of the log: have the state machine take its state
        over, then call `restored`."""

    def on_snapshot_unreadable(self, index: int, reason: str) -> None:
        """The newest snapshot can't be sent: it takes another one to bring up whoever needs it."""

    def on_abandon(self, effect: Abandon) -> None:
        """What this node has is to be put aside: end, and start anew with an empty data
        directory."""

    def on_judged(self, effect: StateJudged) -> None: ...

    def on_note(self, note: Note) -> None: ...

    def on_storage_failed(self, failure: StorageFailure) -> None: ...

    def on_fatal(self, error: Exception) -> None: ...


class Engine:
    """Owns the node. `feed` is the only way in; effects go to store, transport and observer.

    `excuses`: what is asked before a silence counts. `last_stamp`: what a program in the kernel
    saw of leaders of a term or later ones; set when there is one.
    """

    def __init__(
        self,
        *,
        node: Node,
        store: Store,
        transport: Transport,
        observer: Observer,
        loop: asyncio.AbstractEventLoop,
        excuses: Excuses = Excuses.ALL,
    ) -> None:
        self.node = node
        self._store = store
        self._transport = transport
        self._observer = observer
        self._loop = loop
        self._excuses = excuses
        self.last_stamp: Callable[[int], LeaderStamp | None] | None = None
        self._inbox: deque[Event] = deque()
        self._busy = False
        self._closed = False
        self._log_persisted = 0
        self._vote_persisted = 0
        self._held: list[Send] = []
        self._logs_messages = log.isEnabledFor(logging.DEBUG)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_us = 0
        self._carry_out: dict[type, Callable[[Any], None]] = {
            Send: self._send,
            AppendLog: store.append,
            Apply: self._apply,
            SaveVote: store.save_vote,
            ReadLog: self._read_log,
            Proposed: observer.on_answer,
            Refused: observer.on_answer,
            ReadReady: observer.on_answer,
            TransferDone: observer.on_answer,
            MembershipChanged: observer.on_answer,
            Recovered: self._recovered,
            Abandon: observer.on_abandon,
            CompactLog: self._compact_log,
            ReadSnapshot: self._read_snapshot,
            WriteSnapshot: self._write_snapshot,
            InstallSnapshot: store.install_snapshot,
            RoleChanged: observer.on_role,
            ConfigurationChanged: observer.on_configuration,
            FoundCluster: self._found_cluster,
            StateJudged: observer.on_judged,
            Note: observer.on_note,
        }

    def start(self) -> None:
        self._store.start(
            post=self.post,
            on_log_persisted=self._on_log_persisted,
            on_vote_persisted=self._on_vote_persisted,
            on_snapshot_installed=self._on_snapshot_installed,
            on_failed=self._on_storage_failed,
        )
        self._arm()

    def close(self) -> None:
        """No event is taken after this; what is held back is never sent."""
        self._closed = True
        self._held.clear()
        if self._timer is not None:
            self._timer.cancel()

    @property
    def inbox_length(self) -> int:
        """How many events wait for the core."""
        return len(self._inbox)

    @property
    def held_count(self) -> int:
        """How many messages wait for the disk before they may leave."""
        return len(self._held)

    # --- the way in

    def feed(self, event: Event) -> None:
        """Take an event; effects may bring more of them, which follow in order."""
        if self._closed:
            return
        self._inbox.append(event)
        if self._busy:
            return
        self._busy = True
        try:
            self._drain()
        except Exception as error:
            # A broken invariant or a bug: nothing that is in memory can be trusted any more.
            self.close()
            self._observer.on_fatal(error)
        finally:
            self._busy = False
        self._arm()

    def _drain(self) -> None:
        inbox = self._inbox
        carry_out = self._carry_out
        while inbox:
            event = inbox.popleft()
            effects: list[Effect] = self.node.step(event, now_us())
            for effect in effects:
                carry_out[type(effect)](effect)

    def received(self, sender: int, message: Any) -> None:
        if self._logs_messages:
            log.debug("from %016x: %s", sender, message)
        self.feed(Received(sender, message))

    # --- effects

    def _send(self, effect: Send) -> None:
        if effect.after_log > self._log_persisted or effect.after_vote > self._vote_persisted:
            self._held.append(effect)
            return
        if self._logs_messages:
            log.debug("to %016x: %s", effect.to, effect.message)
        self._transport.send(effect.to, effect.message)

    def _release(self) -> None:
        held, self._held = self._held, []
        for effect in held:
            self._send(effect)

    def _apply(self, effect: Apply) -> None:
        size = 0
        for batch in effect.batches:
            self._observer.on_apply(batch)
            size += len(batch.record)
        index = effect.batches[-1].last_index
        self._observer.on_applied(index)
        if size > _LONG_APPLY_BYTES:
            self._loop.call_soon(self.feed, Applied(index))
        else:
            self._inbox.append(Applied(index))

    def _read_log(self, effect: ReadLog) -> None:
        self._in_thread(
            lambda: self._store.read(effect.from_index, effect.max_bytes),
            lambda batches: LogRead(effect.purpose, effect.from_index, batches),
        )

    def _compact_log(self, effect: CompactLog) -> None:
        self._store.compact(effect.upto_index)

    def _read_snapshot(self, effect: ReadSnapshot) -> None:
        def read() -> bytes | OSError:
            try:
                return self._store.snapshots.read_chunk(
                    effect.index, effect.offset, effect.max_bytes
                )
            except OSError as error:
                return error

        self._in_thread(read, lambda found: self._snapshot_read(effect, found))

    def _snapshot_read(self, effect: ReadSnapshot, found: bytes | OSError) -> SnapshotRead:
        """A file that can't be read is like one that arrives damaged: no reason to end the node.
        When it is the newest there is no other to send; of an older one nobody needs to know.
        """
        if isinstance(found, OSError):
            data, reason = b"", in_words(found)
        else:
            data, reason = found, "it is gone, or ends too early"
        newest = self._store.snapshots.newest
        if not data and newest is not None and newest.index == effect.index:
            self._observer.on_snapshot_unreadable(effect.index, reason)
        return SnapshotRead(effect.peer, effect.index, effect.offset, data)

    def _write_snapshot(self, effect: WriteSnapshot) -> None:
        self._in_thread(
            lambda: self._store.snapshots.write_chunk(effect),
            lambda offset: SnapshotWritten(effect.index, offset),
        )

    def _in_thread(self, work: Callable[[], _T], event_of: Callable[[_T], Event]) -> None:
        """Do disk work in a thread of the pool, and feed what came of it."""
        future = self._loop.run_in_executor(None, work)
        future.add_done_callback(lambda done: self._was_done(done, event_of))

    def _was_done(self, done: asyncio.Future[_T], event_of: Callable[[_T], Event]) -> None:
        if self._closed or done.cancelled():
            return
        error = done.exception()
        if error is None:
            self.feed(event_of(done.result()))
        elif isinstance(error, StorageError | OSError):
            self._on_storage_failed(StorageFailure(in_words(error), shortage(error)))
        else:
            self.close()
            self._observer.on_fatal(RuntimeError(f"disk work failed: {error!r}"))

    def _recovered(self, effect: Recovered) -> None:
        self._transport.set_generation(self.node.generation)
        self._observer.on_answer(effect)

    def _found_cluster(self, effect: FoundCluster) -> None:
        self._store.found_cluster(effect.cluster_id)
        self._transport.set_cluster(effect.cluster_id)

    # --- the store's answers

    def post(self, callback: Callable[[], None]) -> None:
        # A store that finishes its queue while the loop ends has nobody left to tell.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback)

    def _on_log_persisted(self, seq: int) -> None:
        self._log_persisted = seq
        if self._held:
            self._release()
        self.feed(LogPersisted(seq))

    def _on_vote_persisted(self, seq: int) -> None:
        self._vote_persisted = seq
        if self._held:
            self._release()
        self.feed(VotePersisted(seq))

    def _on_snapshot_installed(self, index: int, snapshot: SnapshotMeta | None) -> None:
        if self._closed or self.node.state.failed:
            return
        if snapshot is None:
            self.feed(SnapshotInstalled(index, None))
        else:
            self._observer.on_snapshot_durable(
                snapshot, lambda: self.feed(SnapshotInstalled(index, snapshot))
            )

    def _on_storage_failed(self, failure: StorageFailure) -> None:
        if self._closed or self.node.state.failed:
            return
        self._held.clear()
        self.feed(StorageFailed(failure.reason))
        self._observer.on_storage_failed(failure)

    def found_damage(self, error: StorageError) -> None:
        """What the log holds can't be read as it was written."""
        self._on_storage_failed(StorageFailure(str(error), shortage=""))

    # --- time

    def _arm(self) -> None:
        """Most events move the election timer later; the loop's timer is only ever moved earlier,
        and looks again when it fires."""
        due_us = self.node.next_deadline_us
        if due_us is None or self._closed:
            return
        if self._timer is not None:
            if due_us >= self._timer_due_us:
                return
            self._timer.cancel()
        self._timer_due_us = due_us
        # uvloop counts in milliseconds and rounds: what is rounded down would fire again and again
        # until it is due.
        delay_ms = -(-max(due_us - now_us(), 0) // 1000)
        self._timer = self._loop.call_later(delay_ms / 1000, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        # Asked once a tick and not for each message, since an idle leader does little else.
        self._logs_messages = log.isEnabledFor(logging.DEBUG)
        due_us = self.node.next_deadline_us
        late_us = 0 if due_us is None else now_us() - due_us
        if due_us is None or late_us < 0:
            self._arm()
            return
        leads = self.node.role is Role.LEADER
        if self._excuses is Excuses.ALL and (not leads or late_us > _STALL_US):
            # What arrived while this process stood still is read before silence is judged. uvloop
            # runs timers before it polls, so a timer set now fires after a full turn of reads.
            self._timer_due_us = 0
            self._timer = self._loop.call_later(0.001, self._silence_is_judged, late_us)
            return
        self._tick(None, self._stamp() if self._excuses is Excuses.STAMP else None)

    def _silence_is_judged(self, late_us: int) -> None:
        self._timer = None
        due_us = self.node.next_deadline_us
        if due_us is None or now_us() < due_us:
            self._arm()
            return
        if late_us > _STALL_US:
            level = logging.INFO if late_us >= _LONG_STALL_US else logging.DEBUG
            log.log(level, "a timer fired %d ms late: this process stood still", late_us // 1000)
        node = self.node
        silence_us = None
        if node.leader_id and node.role is not Role.LEADER:
            silence_us = self._transport.leader_silence_us(node.leader_id, node.current_term)
        self._tick(silence_us, self._stamp())

    def _stamp(self) -> LeaderStamp | None:
        node = self.node
        if self.last_stamp is None or not node.leader_id or node.role is Role.LEADER:
            return None
        return self.last_stamp(node.current_term)

    def _tick(self, leader_silence_us: int | None, stamp: LeaderStamp | None) -> None:
        self.feed(TimerExpired(leader_silence_us, stamp))


def now_us() -> int:
    """The core's clock in microseconds: it never goes back, and it goes on while the machine is
    suspended, because a leader's lease does not wait for it."""
    return time.clock_gettime_ns(BOOT_CLOCK) // 1000
