"""When a client may try once more, and what it raises when it may not."""

from __future__ import annotations

import random

from raft_agent.api import protocol
from raft_agent.api.answers import (
    AgentNotReachable,
    OutcomeUnknown,
    RaftClientError,
    RequestFailed,
)
from raft_agent.api.protocol import ErrorCode

# The answer to a write that was sent before, too: it would have been the same each time.
_CERTAIN = frozenset(
    {
        ErrorCode.CONFLICT,
        ErrorCode.BAD_REQUEST,
        ErrorCode.TOO_LARGE,
        ErrorCode.LEASE_NOT_FOUND,
    }
)
# The machine has spoken of this copy; it can't tell any more what became of an earlier one.
WRONG_TIME = frozenset({ErrorCode.TOO_LATE, ErrorCode.BAD_DEADLINE})
_GONE = WRONG_TIME | {ErrorCode.SESSION_EXPIRED}
# Nothing has happened, and another agent or a later moment may serve it.
_PASSING = frozenset({ErrorCode.NO_LEADER, ErrorCode.NOT_LEADER, ErrorCode.BUSY})
# Nothing has happened, and this agent will not serve it soon.
ELSEWHERE = frozenset(
    {
        ErrorCode.SHUTTING_DOWN,
        ErrorCode.NOT_IN_CLUSTER,
        ErrorCode.REMOVED,
        ErrorCode.STORAGE_FAILED,
        ErrorCode.STATE_DIFFERS,
    }
)


# How long a client waits before it tries again what nobody could serve just now.
FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_GROWTH = 1.5


class Pauses:
    """The pauses of one request: each about half as long again as the one before.

    Each try at another agent costs both sides a handshake of TLS. If all clients of a cluster
    without a leader tried as often as they could, its agents would have time for nothing else,
    elections among it; and by chance, so that they don't come at once.
    """

    def __init__(self) -> None:
        self._next_s = FIRST_PAUSE_S

    def next_s(self) -> float:
        pause_s = self._next_s * random.uniform(0.5, 1.5)  # noqa: S311  # nothing secret
        self._next_s = min(self._next_s * _GROWTH, _LONGEST_PAUSE_S)
        return pause_s


class Attempts:
    """The attempts at one request. `may_repeat`: it may be sent again although an earlier copy may
    have been served. `has_others`: there is more than one agent to ask.
    """

    def __init__(self, request: protocol.Request, *, has_others: bool = False) -> None:
        self._passing = _PASSING | ELSEWHERE if has_others else _PASSING
        self._is_write = isinstance(request, protocol.WRITES)
        self.may_repeat = not self._is_write or getattr(request, "once", None) is not None
        self._doubt: OutcomeUnknown | None = None
        self._refusal: RequestFailed | None = None

    @property
    def in_doubt(self) -> bool:
        """Whether a copy was sent that may have been applied."""
        return self._doubt is not None

    def failed(self, error: RaftClientError, *, is_last: bool) -> None:
        """An attempt ended with `error`. Returns when another one may follow. Else, or when it was
        the last one, raises what all of them have come to.
        """
        may_follow = True
        if isinstance(error, OutcomeUnknown):
            if self._is_write:
                self._doubt = error
                may_follow = self.may_repeat
            else:
                error = AgentNotReachable(str(error))
        elif isinstance(error, RequestFailed):
            if error.code in _CERTAIN:
                raise error
            self._refusal = error
            may_follow = error.code not in _GONE if self.in_doubt else error.code in self._passing
        if is_last or not may_follow:
            raise self._doubt or self._refusal or error
