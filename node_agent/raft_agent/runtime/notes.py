"""What the core notes: told to people, and what the agent itself makes of it."""

from __future__ import annotations

from collections.abc import Callable

from raft_agent.consensus.types import Note
from raft_agent.runtime.events import EventLog
from raft_agent.runtime.snapshotter import Snapshotter
from raft_agent.runtime.views import Views
from raft_agent.transport.transport import Transport


class Notes:
    """`tell` makes an event of a kind and its facts."""

    def __init__(
        self,
        views: Views,
        transport: Transport,
        snapshotter: Snapshotter,
        events: EventLog,
        *,
        tell: Callable[..., None],
    ) -> None:
        self._views = views
        self._transport = transport
        self._snapshotter = snapshotter
        self._events = events
        self._tell = tell
        self._asked_for_pre_votes = False

    def leader_is_known(self) -> None:
        self._asked_for_pre_votes = False

    def take(self, note: Note) -> None:
        if note.kind == "bootstrap_waits":
            self._views.note = f"waiting to be joined: {note.facts['reason']}"
        if note.kind in ("removed", "superseded"):
            self._transport.set_peers([])
        if note.kind in ("snapshot_refused", "snapshot_wanted"):
            # The file may have gone bad on this disk; what the machine holds has not.
            self._snapshotter.take()
        if note.kind == "snapshot_wanted":
            return  # said again with every heartbeat, until there is one
        if note.kind == "pre_vote_started":
            # A node that is cut off asks several times a second: the first time is news.
            if self._asked_for_pre_votes:
                self._events.counts[note.kind] += 1
                return
            self._asked_for_pre_votes = True
        self._tell(note.kind, **note.facts)
