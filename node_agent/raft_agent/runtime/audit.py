"""Who has changed the cluster, or tried to: a line of the log and an event for each."""

from __future__ import annotations

import logging
from collections.abc import Callable

from raft_agent.api.protocol import ErrorCode
from raft_agent.runtime.events import EventLog

log = logging.getLogger("raft.audit")

# Whoever may do nothing can ask at full speed, and must not push everything else out of the events.
MAX_DENIALS = 20
DENIALS_S = 60.0


class Audit:
    """`term`: the node's current one. `clock`: seconds that never go back. Of requests that were
    denied no more than MAX_DENIALS in DENIALS_S are told one by one; the next one after that says
    how many were not.
    """

    def __init__(
        self, events: EventLog, term: Callable[[], int], clock: Callable[[], float]
    ) -> None:
        self._events = events
        self._term = term
        self._clock = clock
        self._since = clock()
        self._denials = 0

    def add(self, who: str, what: str, outcome: str) -> None:
        """Somebody has asked for something, and this came of it."""
        if outcome == ErrorCode.PERMISSION_DENIED:
            now = self._clock()
            untold = 0
            if now - self._since > DENIALS_S:
                untold = max(self._denials - MAX_DENIALS, 0)
                self._since, self._denials = now, 0
            self._denials += 1
            if self._denials > MAX_DENIALS:
                return
            if untold:
                outcome = f"{outcome}; {untold} more were denied before and not told one by one"
        facts: dict[str, int | str] = {"who": who, "what": what, "outcome": outcome}
        log.info("%s", self._events.add("audit", self._term(), facts).text)
