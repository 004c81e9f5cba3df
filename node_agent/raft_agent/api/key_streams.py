"""Watches of keys: what changed, in the order of revisions, all of a revision or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import groupby, pairwise
from typing import Protocol, TypeAlias

import msgspec

from raft_agent.api import problems, protocol
from raft_agent.api.caller import Caller
from raft_agent.api.streams import PUMP_BYTES, Stream
from raft_agent.machine.machine import Machine
from raft_agent.machine.watches import KeyChange

_PUMP_ITEMS = 256


class Timer(Protocol):
    def cancel(self) -> None: ...


CallLater: TypeAlias = Callable[[float, Callable[[], None]], Timer]

# Bookmarks more often than this would cost more than they are worth.
MIN_BOOKMARK_MS = 100


def events_of(changes: Sequence[KeyChange]) -> list[protocol.KeyEvent]:
    """The events of these changes, each of which says whether the next has the same revision."""
    more = [one.revision == other.revision for one, other in pairwise(changes)]
    return [
        protocol.KeyEvent(
            "delete" if change.value is None else "put",
            change.key,
            change.value or b"",
            change.revision,
            change.index,
            change.lease,
            goes_on,
        )
        for change, goes_on in zip(changes, [*more, False], strict=True)
    ]


class KeyEventEncoder:
    """Encodes the changes of one batch once for all who watch the same keys."""

    def __init__(self) -> None:
        self._changes: list[KeyChange] = []
        self._events: dict[bool, list[tuple[msgspec.Raw, int]]] = {}

    def events(self, changes: list[KeyChange], is_json: bool) -> list[tuple[msgspec.Raw, int]]:
        """(encoded KeyEvent, its size in bytes) for each of `changes`."""
        if changes is not self._changes:
            self._changes = changes
            self._events = {}
        events = self._events.get(is_json)
        if events is None:
            encode = protocol.JSON_ENCODER.encode if is_json else protocol.ENCODER.encode
            encoded = [encode(event) for event in events_of(changes)]
            events = self._events[is_json] = [(msgspec.Raw(data), len(data)) for data in encoded]
        return events


class KeyStream(Stream):
    """Changes of a key or of all keys with a prefix: those since a revision from the history, as
    fast as the client reads, then all new ones.

    A client that does not read as fast as the keys change waits for nobody: what it lacks comes
    from the history when it has read, or the stream ends when the history does not reach back.

    `call_later`: the running loop's, when it is not given.
    """

    def __init__(
        self,
        caller: Caller,
        request: protocol.WatchKeys,
        machine: Machine,
        encoder: KeyEventEncoder,
        call_later: CallLater | None = None,
    ) -> None:
        super().__init__(caller, request.id)
        self._request = request
        self._machine = machine
        self._encoder = encoder
        # All changes up to this revision of the store were pushed, or are not wanted.
        self._position = request.from_revision - 1 if request.from_revision else machine.revision
        # What the client knows that it has.
        self._told = self._position
        self._bookmark_s = max(request.bookmark_ms, MIN_BOOKMARK_MS) / 1000
        self._call_later = call_later
        self._timer: Timer | None = None

    def start(self) -> None:
        machine = self._machine
        if self._position < machine.compacted_revision:
            self.caller.fail(self.stream_id, self._compacted())
            return
        watches = machine.watches
        watch = watches.watch_prefix if self._request.prefix else watches.watch_key
        cancel = watch(self._request.key, self._changed, self._jumped)
        self._started(machine.last_applied, cancel, self._position)
        self.pump()
        if self._request.bookmark_ms and self._cancel is not None:
            self._bookmark()

    def stop(self) -> None:
        super().stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _changed(self, changes: list[KeyChange]) -> None:
        if self.waiting:
            return  # the history has them, too
        caller = self.caller
        if caller.unsent_bytes() >= PUMP_BYTES:
            # All that came before was told; what of it does not concern this watch may be gone.
            self._position = max(self._position, changes[0].revision - 1)
            self.waiting = True
            return
        position = self._position
        for change, (event, size) in zip(
            changes, self._encoder.events(changes, caller.is_json), strict=True
        ):
            # A client may know more already than this node had applied.
            if change.revision > position:
                caller.push(self.stream_id, event, size)
        self._position = max(position, self._machine.revision)
        self._told = max(self._told, changes[-1].revision)

    def _jumped(self, revision: int) -> None:
        if not self.waiting:
            self._position = max(self._position, revision)
        self.pump()

    def pump(self) -> None:
        machine = self._machine
        self.waiting = False
        while True:
            if self._position < machine.compacted_revision:
                self.end(self._compacted())
                return
            changes = machine.changes_since(self._position + 1, _PUMP_ITEMS)
            for revision, together in groupby(changes, lambda change: change.revision):
                if not self._push(list(filter(self._matches, together))):
                    self.waiting = True
                    return
                self._position = revision
            if not changes:
                return

    def _push(self, changes: Sequence[KeyChange]) -> bool:
        """Push what one revision changed; False when the client has to read first."""
        if not changes:
            return True
        caller = self.caller
        if caller.unsent_bytes() >= PUMP_BYTES:
            return False
        for event in events_of(changes):
            caller.push(self.stream_id, event, len(event.key) + len(event.value))
        self._told = changes[-1].revision
        return True

    def _bookmark(self) -> None:
        """Say up to where all was told, and do so again after a while."""
        call_later = self._call_later or asyncio.get_running_loop().call_later
        self._timer = call_later(self._bookmark_s, self._bookmark)
        machine = self._machine
        if self.waiting or machine.revision <= self._told:
            return
        self._told = self._position = machine.revision
        bookmark = protocol.KeyEvent("bookmark", "", b"", machine.revision, machine.last_applied)
        self.caller.push(self.stream_id, bookmark, 0)

    def _matches(self, change: KeyChange) -> bool:
        wanted = self._request.key
        return change.key.startswith(wanted) if self._request.prefix else change.key == wanted

    def _compacted(self) -> protocol.Error:
        return problems.compacted(self._position + 1, self._machine.compacted_revision + 1)
