"""What the program reports, as events for people."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Protocol

from raft_agent.kernel.layout import Direction, EventKind, LostReason
from raft_agent.kernel.ring import Event, EventRing

log = logging.getLogger("raft.kernel")

# Strangers choose how many events there are; beside theirs the others must stay visible.
_PER_SECOND = 5

_LOST: dict[int, str] = {
    LostReason.GAP: "bytes never passed here",
    LostReason.TOO_MANY: "a packet held more frames than can be walked",
    LostReason.UNREADABLE: "a packet could not be read",
}


class Tell(Protocol):
    """Notes an event at this node."""

    def __call__(self, kind: str, **facts: int | str) -> None: ...


class News:
    """Reads the ring buffer when it has something, and tells it; at most a few of each kind a
    second, those beyond are counted.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: EventRing, tell: Tell) -> None:
        self._loop = loop
        self._ring = ring
        self._fd = ring.fileno()
        self._tell = tell
        self._told: Counter[EventKind] = Counter()
        loop.add_reader(self._fd, self._read)

    def _read(self) -> None:
        try:
            events = self._ring.consume()
        except OSError as error:
            log.warning("%s", error)
            self._loop.remove_reader(self._fd)
            return
        for event in events:
            self._told[event.kind] += 1
            if self._told[event.kind] <= _PER_SECOND:
                kind, facts = describe(event)
                self._tell(kind, **facts)

    def second_passed(self) -> None:
        """Call it once a second."""
        left_out = sum(max(count - _PER_SECOND, 0) for count in self._told.values())
        self._told.clear()
        if left_out:
            self._tell("kernel_more", count=left_out)

    def close(self) -> None:
        self._loop.remove_reader(self._fd)


def describe(event: Event) -> tuple[str, dict[str, int | str]]:
    """(kind, facts) of an event; members stand in it as `sender`."""
    remote = f"{event.flow.remote}"
    way = "from" if event.direction is Direction.INGRESS else "to"
    match event.kind:
        case EventKind.NEW_LEADER:
            return "kernel_leader_seen", {"sender": event.sender, "of_term": event.term}
        case EventKind.TERM_RAISED:
            return "kernel_term_raised", {"sender": event.sender, "of_term": event.term}
        case EventKind.UNKNOWN_SOURCE:
            done = "refused" if event.detail else "let through"
            return "kernel_stranger", {"address": remote, "done": done}
        case EventKind.BAD_HEADER:
            found = f"{event.detail:08x}"
            return "kernel_bad_header", {"way": way, "address": remote, "magic": found}
        case EventKind.LOST_SYNC:
            reason = _LOST.get(event.detail, "unknown")
            return "kernel_lost_sync", {"way": way, "address": remote, "reason": reason}
        case EventKind.FAULT_HIT:
            return "kernel_fault_hit", {"way": way, "address": remote, "per_mille": event.detail}
