"""How a request that did not work is answered.

Use it as members of `protocol`.
"""

from __future__ import annotations

import enum

import msgspec


class ErrorCode(enum.StrEnum):
    """Stable words for what went wrong. `UNKNOWN_OUTCOME`: the write may still happen; every other
    code of a write means that it did not and will not. `SESSION_EXPIRED`, `TOO_LATE` and
    `BAD_DEADLINE` say that of this copy alone: an earlier one may have been applied.
    """

    NOT_LEADER = "not_leader"
    NO_LEADER = "no_leader"
    KEY_NOT_FOUND = "key_not_found"
    CONFLICT = "conflict"
    BAD_REQUEST = "bad_request"
    TOO_LARGE = "too_large"
    BUSY = "busy"
    UNKNOWN_OUTCOME = "unknown_outcome"
    TIMED_OUT = "timed_out"
    NO_SUCH_MEMBER = "no_such_member"
    NOT_IN_CLUSTER = "not_in_cluster"
    STORAGE_FAILED = "storage_failed"
    NOT_IN_THIS_VERSION = "not_in_this_version"
    SHUTTING_DOWN = "shutting_down"
    INTERNAL = "internal"
    SESSION_EXPIRED = "session_expired"
    TOO_LATE = "too_late"
    BAD_DEADLINE = "bad_deadline"
    COMPACTED = "compacted"
    CHANGE_PENDING = "change_pending"
    QUORUM_AT_RISK = "quorum_at_risk"
    REMOVED = "removed"
    REFUSED = "refused"
    LEASE_NOT_FOUND = "lease_not_found"
    PERMISSION_DENIED = "permission_denied"
    STATE_DIFFERS = "state_differs"
    STATES_DISPUTED = "states_disputed"


class Error(msgspec.Struct, frozen=True, omit_defaults=True):
    """`error` is the sentence for people, `hint` what to do next, `leader` a name when known.
    `time_ms`: with TOO_LATE and BAD_DEADLINE the log's time; `revision`: with COMPACTED the oldest
    from which changes are kept.
    """

    error: str
    code: ErrorCode
    hint: str = ""
    leader: str = ""
    time_ms: int = 0
    revision: int = 0
