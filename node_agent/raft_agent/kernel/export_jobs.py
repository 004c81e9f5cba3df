"""What the event loop hands over to whoever keeps exported maps, in its order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

import msgspec

from raft_agent.machine.entry import Entry
from raft_agent.machine.exports import MapChange, Shape

# Changes that wait are written together, so many at most: a batch that takes milliseconds.
MAX_TOGETHER = 4096
UNKNOWN_INDEX = 1 << 63


class Declare(msgspec.Struct, frozen=True):
    """These are exported. What those of them hold that are not known yet is about to come, and when
    all is `anew` what each of them holds."""

    shapes: tuple[Shape, ...]
    anew: bool


class Fill(msgspec.Struct, frozen=True):
    """Part of what the map holds."""

    map: str
    entries: list[Entry]


class Change(msgspec.Struct, frozen=True):
    """What has changed up to `index`. `completes`: with it all has come that the last Declare
    announced."""

    changes: list[MapChange]
    index: int
    completes: bool = False


class Beat(msgspec.Struct, frozen=True):
    """How things stand once everything that was handed over before is in the maps. `index`: the
    last entry that is applied."""

    index: int
    term: int
    leader_id: int
    role: int
    fresh_until_ns: int


class Ask(msgspec.Struct, frozen=True):
    """What the kernel has in this map, at most `limit` entries; `answer` is called in the thread,
    with the log's index that they are of."""

    map: str
    limit: int
    answer: Callable[[list[tuple[bytes, bytes]] | str, int], None]


class Stop(msgspec.Struct, frozen=True):
    """Nothing comes any more."""


Job: TypeAlias = Declare | Fill | Change | Beat | Ask | Stop


class Listener(Protocol):
    """What the thread tells; it calls these itself."""

    def found(self, index: int) -> None:
        """Maps that are pinned already are of this index of the log. UNKNOWN_INDEX: nothing says
        which."""

    def happened(self, kind: str, **facts: int | str) -> None:
        """An event for people."""

    def written(self, index: int, changes: list[tuple[Shape, MapChange]]) -> None:
        """These are in the maps, which are at this index."""


def together(job: Job, take: Callable[[], Job | None]) -> tuple[Job, Job | None]:
    """One job for this one and what follows it, where that comes to the same, and what was taken in
    vain. `take`: the next job that is there already."""
    if isinstance(job, Change) and not job.completes:
        return _changes_together(job, take)
    following: Job | None = None
    while isinstance(job, Beat):
        following = take()
        if not isinstance(following, Beat):
            break
        job = following
    return job, following


def _changes_together(job: Change, take: Callable[[], Job | None]) -> tuple[Change, Job | None]:
    changes, index = list(job.changes), job.index
    while len(changes) < MAX_TOGETHER:
        following = take()
        if not isinstance(following, Change) or following.completes:
            return Change(changes, index), following
        changes += following.changes
        index = following.index
    return Change(changes, index), None
