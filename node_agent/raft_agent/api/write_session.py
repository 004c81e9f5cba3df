"""The numbers that a client gives its writes, so that each is applied once."""

from __future__ import annotations

from raft_agent.api import protocol


class WriteSession:
    """One session that was opened in the cluster.

    A number that has ended is acknowledged with the next writes: its answer has come, or nobody
    waits for it any more, and a copy that is still on its way must not be applied.
    """

    def __init__(self, session: int) -> None:
        self.session = session
        self.was_used = False
        self._last = 0
        # In the order of their numbers.
        self._open: dict[int, None] = {}

    def begin(self) -> protocol.SessionRef:
        """What the next write is sent with; call `end` when it is over."""
        self.was_used = True
        self._last += 1
        self._open[self._last] = None
        return protocol.SessionRef(self.session, self._last, next(iter(self._open)))

    def end(self, once: protocol.SessionRef) -> None:
        self._open.pop(once.sequence, None)
