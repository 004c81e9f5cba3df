"""Exactly once: which commands of clients were applied before, and what their results were.

A client that got no answer sends its command again, and a second copy may be in the log already.
Sessions number their commands; one-shots have a random id and a deadline. When something is
forgotten depends on the log's time alone, and every order here follows from the state, so nodes
that got it from a snapshot go on like those that applied it all.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator

import msgspec

from raft_agent.machine.commands import InSession, Once, StateCommand, Transact
from raft_agent.machine.pieces import letting_go
from raft_agent.machine.results import (
    BadCommand,
    BadDeadline,
    BadValue,
    CommandResult,
    Forgotten,
    Repeated,
    SessionClosed,
    SessionExpired,
    SessionKept,
    SessionOpened,
    StateResult,
    TooLate,
    TooMany,
    TransactionDone,
)
from raft_agent.machine.transactions import read_bytes

MIN_TTL_MS = 1_000
MAX_TTL_MS = 24 * 3_600_000
MAX_SESSIONS = 65_536
MAX_RESULTS_OF_A_SESSION = 65_536
# All sessions together.
MAX_RESULTS = 1 << 20
# What transactions have read, in the results of all sessions, and in those of all one-shots.
MAX_READ_BYTES = 64 << 20
MAX_ONE_SHOTS = 1 << 20
MAX_DEADLINE_AHEAD_MS = 600_000
REQUEST_ID_BYTES = 16

# So much is forgotten in one batch at most: after a pause of the log very much may have expired.
_SESSIONS_AT_ONCE = 1024
_ONE_SHOTS_AT_ONCE = 8192

_SHARDS = 256

Apply = Callable[[StateCommand, int], StateResult]

_EXPIRED = SessionExpired()
_FORGOTTEN = Forgotten()
_BAD = BadCommand()
_TOO_MUCH_READ = TooMany("bytes that transactions have read and may ask for again", MAX_READ_BYTES)


class Session(msgspec.Struct):
    """`results` by sequence; `unacked` is a heap of the sequences in it. `view` counts the snapshot
    views before this object was made: one that came later shares it, so that it is copied before
    it changes.
    """

    id: int
    ttl_ms: int
    deadline_ms: int
    acked_below: int
    results: dict[int, Repeated] = {}
    unacked: list[int] = []
    view: int = 0


class OneShot(msgspec.Struct, frozen=True, order=True, array_like=True, gc=False):
    """In the order in which they are forgotten: by deadline, then by index."""

    deadline_ms: int
    index: int
    term: int
    request_id: bytes
    result: StateResult


class Sessions:
    """The sessions of clients, each with its results."""

    def __init__(self) -> None:
        self._sessions: dict[int, Session] = {}
        # (deadline, id); a session that was used since has a later one than is noted here.
        self._due: list[tuple[int, int]] = []
        self._result_count = 0
        self._read_bytes = 0
        self._view = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, ttl_ms: int, index: int, time_ms: int) -> CommandResult:
        if not MIN_TTL_MS <= ttl_ms <= MAX_TTL_MS:
            return BadValue(f"A session's ttl is from {MIN_TTL_MS} to {MAX_TTL_MS} ms")
        if len(self._sessions) >= MAX_SESSIONS:
            return TooMany("sessions", MAX_SESSIONS)
        self.put_back(Session(index, ttl_ms, time_ms + ttl_ms, 0, view=self._view))
        return SessionOpened(index)

    def keep(self, session_id: int, time_ms: int) -> CommandResult:
        session = self._used(session_id, time_ms)
        return _EXPIRED if session is None else SessionKept()

    def close(self, session_id: int, time_ms: int) -> CommandResult:
        session = self._sessions.get(session_id)
        if session is None or session.deadline_ms < time_ms:
            return _EXPIRED
        self._forget(session)
        # Ids that are gone are passed over in `_due`, but must not fill the memory.
        if len(self._due) > 2 * len(self._sessions) + MAX_SESSIONS:
            self._due = [(other.deadline_ms, other.id) for other in self._sessions.values()]
            heapq.heapify(self._due)
        return SessionClosed()

    def apply_once(
        self, command: InSession, index: int, term: int, time_ms: int, apply: Apply
    ) -> CommandResult:
        """Apply the command with `apply`, or answer what it was answered the first time."""
        session = self._used(command.session, time_ms)
        if session is None:
            return _EXPIRED
        results = session.results
        if command.acked_below > session.acked_below:
            session.acked_below = command.acked_below
            unacked = session.unacked
            while unacked and unacked[0] < command.acked_below:
                first = results.pop(heapq.heappop(unacked))
                self._result_count -= 1
                if self._read_bytes:
                    self._read_bytes -= read_bytes(first.result)
        sequence = command.sequence
        known = results.get(sequence)
        if known is not None:
            return known
        if sequence < session.acked_below:
            return _FORGOTTEN
        if len(results) >= MAX_RESULTS_OF_A_SESSION:
            return TooMany("results of this session", MAX_RESULTS_OF_A_SESSION)
        if self._result_count >= MAX_RESULTS:
            return TooMany("results of all sessions", MAX_RESULTS)
        if type(command.command) is Transact and self._read_bytes >= MAX_READ_BYTES:
            return _TOO_MUCH_READ
        result = apply(command.command, index)
        results[sequence] = Repeated(index, term, result)
        heapq.heappush(session.unacked, sequence)
        self._result_count += 1
        if type(result) is TransactionDone:
            self._read_bytes += read_bytes(result)
        return result

    def _used(self, session_id: int, time_ms: int) -> Session | None:
        """The session, which lives on for its ttl and may be changed."""
        session = self._sessions.get(session_id)
        if session is None or session.deadline_ms < time_ms:
            return None
        if session.view < self._view:
            session = Session(
                session.id,
                session.ttl_ms,
                session.deadline_ms,
                session.acked_below,
                session.results.copy(),
                session.unacked.copy(),
                self._view,
            )
            self._sessions[session_id] = session
        session.deadline_ms = time_ms + session.ttl_ms
        return session

    def _forget(self, session: Session) -> None:
        del self._sessions[session.id]
        self._result_count -= len(session.results)
        if self._read_bytes:
            self._read_bytes -= sum(read_bytes(first.result) for first in session.results.values())

    def expire(self, time_ms: int) -> None:
        """Forget sessions whose deadline has passed. Those that wait for the next time count as
        gone already, but for MAX_SESSIONS."""
        due = self._due
        forgotten = 0
        while due and due[0][0] < time_ms and forgotten < _SESSIONS_AT_ONCE:
            noted_ms, session_id = due[0]
            session = self._sessions.get(session_id)
            if session is None:
                heapq.heappop(due)
            elif session.deadline_ms > noted_ms:
                heapq.heapreplace(due, (session.deadline_ms, session_id))
            else:
                heapq.heappop(due)
                self._forget(session)
                forgotten += 1

    def frozen(self) -> list[Session]:
        """The sessions of this moment; none of these objects changes any more."""
        self._view += 1
        return list(self._sessions.values())

    def put_back(self, session: Session) -> None:
        """Add a session; in the order of their ids."""
        self._sessions[session.id] = session
        heapq.heappush(self._due, (session.deadline_ms, session.id))

    def put_back_result(self, session_id: int, sequence: int, first: Repeated) -> None:
        """Add a result to a session that is there."""
        session = self._sessions[session_id]
        session.results[sequence] = first
        heapq.heappush(session.unacked, sequence)
        self._result_count += 1
        self._read_bytes += read_bytes(first.result)

    def dismantle(self) -> None:
        """Free the sessions piece by piece; they must not be used any more."""
        while self._sessions:
            self._sessions.popitem()
        while self._due:
            self._due.pop()


class OneShots:
    """Commands that were applied once, by their request ids, until their deadlines."""

    def __init__(self) -> None:
        # Shards, because a snapshot view shares them, and a change then copies only one.
        self._shards: list[dict[bytes, OneShot]] = [{} for _ in range(_SHARDS)]
        self._shared = bytearray(_SHARDS)
        self._due: list[OneShot] = []
        self._read_bytes = 0

    def __len__(self) -> int:
        return len(self._due)

    def apply_once(
        self, command: Once, index: int, term: int, time_ms: int, apply: Apply
    ) -> CommandResult:
        """Apply the command with `apply`, or answer what it was answered the first time."""
        request_id = command.request_id
        deadline_ms = command.deadline_ms
        if len(request_id) != REQUEST_ID_BYTES:
            return _BAD
        if deadline_ms < time_ms:
            return TooLate(time_ms)
        first = self._shards[request_id[0]].get(request_id)
        if first is not None:
            return Repeated(first.index, first.term, first.result)
        if deadline_ms > time_ms + MAX_DEADLINE_AHEAD_MS:
            return BadDeadline(time_ms, MAX_DEADLINE_AHEAD_MS)
        if len(self._due) >= MAX_ONE_SHOTS:
            return TooMany("one-shot requests", MAX_ONE_SHOTS)
        if type(command.command) is Transact and self._read_bytes >= MAX_READ_BYTES:
            return _TOO_MUCH_READ
        result = apply(command.command, index)
        self.put_back(OneShot(deadline_ms, index, term, request_id, result))
        return result

    def put_back(self, one_shot: OneShot) -> None:
        """Remember one that was applied."""
        self._own(one_shot.request_id)[one_shot.request_id] = one_shot
        heapq.heappush(self._due, one_shot)
        if type(one_shot.result) is TransactionDone:
            self._read_bytes += read_bytes(one_shot.result)

    def _own(self, request_id: bytes) -> dict[bytes, OneShot]:
        """The shard of this id, which may be changed."""
        number = request_id[0]
        if self._shared[number]:
            self._shared[number] = 0
            self._shards[number] = self._shards[number].copy()
        return self._shards[number]

    def expire(self, time_ms: int) -> None:
        """Forget those whose deadline has passed; those that wait for the next time are refused as
        too late already."""
        due = self._due
        for _ in range(_ONE_SHOTS_AT_ONCE):
            if not due or due[0].deadline_ms >= time_ms:
                return
            one_shot = heapq.heappop(due)
            request_id = one_shot.request_id
            del self._own(request_id)[request_id]
            if self._read_bytes:
                self._read_bytes -= read_bytes(one_shot.result)

    def frozen(self) -> Iterator[OneShot]:
        """Those of this moment, whatever changes meanwhile."""
        self._shared = bytearray(b"\x01" * _SHARDS)
        return letting_go([shard.values() for shard in self._shards])

    def dismantle(self) -> None:
        """Free them piece by piece; they must not be used any more."""
        while self._shards:
            self._shards.pop()
        while self._due:
            self._due.pop()
