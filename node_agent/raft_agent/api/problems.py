"""Why a request is refused, in the protocol's words."""

from __future__ import annotations

from raft_agent import wire
from raft_agent.api import protocol
from raft_agent.api.protocol import Error, ErrorCode
from raft_agent.machine.results import (
    BadDeadline,
    BadValue,
    ConditionFailed,
    Forgotten,
    LeaseGone,
    LimitReached,
    SessionExpired,
    StatesDisputed,
    TooLate,
    TooMany,
)
from raft_agent.machine.transactions import TransactionError, check


def key_problem(key: str) -> Error | None:
    """What is wrong with this key."""
    if not key:
        return Error("A key can't be empty", ErrorCode.BAD_REQUEST)
    # At most four bytes a character: most keys need no encoding to be found short enough.
    if 4 * len(key) > protocol.MAX_KEY_BYTES:
        size = len(key.encode())
        if size > protocol.MAX_KEY_BYTES:
            return too_large("key", size, protocol.MAX_KEY_BYTES)
    return None


def put_problem(key: str, value: bytes) -> Error | None:
    """What is wrong with a key and the value that it is to have."""
    if key and 4 * len(key) <= protocol.MAX_KEY_BYTES and len(value) <= protocol.MAX_VALUE_BYTES:
        return None
    problem = key_problem(key)
    if problem is None and len(value) > protocol.MAX_VALUE_BYTES:
        problem = too_large("value", len(value), protocol.MAX_VALUE_BYTES)
    return problem


def no_such_key(request: protocol.Get, age_ms: int | None) -> Error:
    """`age_ms`: of a stale read, how old it may be; None when that is not known."""
    hint = ""
    if request.consistency is protocol.Consistency.STALE:
        hint = "It may be of any age: this node has not heard of a leader yet"
        if age_ms is not None:
            hint = f"As of {age_ms} ms ago; --consistency linearizable asks for now"
    return Error(f'No such key: "{request.key}"', ErrorCode.KEY_NOT_FOUND, hint)


def too_large(what: str, size: int, limit: int) -> Error:
    return Error(f"The {what} of {size} bytes is over the limit of {limit}", ErrorCode.TOO_LARGE)


def too_many_messages(count: int) -> Error:
    return Error(
        f"The newest {count} messages are over the limit of {wire.MAX_BODY_BYTES} bytes together",
        ErrorCode.TOO_LARGE,
        "Ask for fewer (limit), or watch them.",
    )


def too_much_unread() -> Error:
    return Error(
        "Too many replies wait to be read by this client",
        ErrorCode.BUSY,
        "Read while you send, or ask for less at a time.",
    )


def compacted(wanted: int, oldest: int) -> Error:
    """A watch wants changes from the revision `wanted` on, and the first ones are gone."""
    return Error(
        f"The changes from revision {wanted} on are not all kept; the oldest is {oldest}",
        ErrorCode.COMPACTED,
        "Read the keys, and watch from the revision on that follows the store's then.",
        revision=oldest,
    )


def lease_not_found(lease: int) -> Error:
    return Error(
        f"There is no lease {lease}, or no longer",
        ErrorCode.LEASE_NOT_FOUND,
        "It was revoked, or not kept alive in time, and its keys are gone: grant another one.",
    )


def transaction_problem(request: protocol.Txn) -> Error | None:
    """What is wrong with this transaction, whatever the keys are."""
    try:
        check(request.compares, request.then, request.otherwise)
    except TransactionError as error:
        return Error(str(error), ErrorCode.BAD_REQUEST)
    return None


def refused(request: protocol.Request, index: int, result: object) -> Error:
    """The command stands in the log at `index`, but it changed nothing."""
    if isinstance(result, ConditionFailed) and isinstance(request, protocol.Put | protocol.Delete):
        actual = result.actual_revision
        found = f"at revision {actual}" if actual else "absent"
        wanted = f"at revision {request.if_revision}" if request.if_revision else "absent"
        return Error(
            f'The key "{request.key}" is {found}, not {wanted}',
            ErrorCode.CONFLICT,
            "Read the key and decide anew.",
        )
    if isinstance(result, ConditionFailed) and isinstance(request, protocol.ExportRemove):
        return Error(
            f"No map {request.map} is exported",
            ErrorCode.KEY_NOT_FOUND,
            "What is exported: raftctl export list",
        )
    if isinstance(result, StatesDisputed):
        return Error(
            "No majority of the members has equal states (found at index "
            f"{result.index}): nothing is written until one has",
            ErrorCode.STATES_DISPUTED,
            "See which differ: raftctl doctor --cluster",
        )
    if isinstance(result, LeaseGone):
        return lease_not_found(result.lease)
    if isinstance(result, LimitReached):
        return Error(
            f"It would be more than {result.limit} {result.what}",
            ErrorCode.TOO_LARGE,
            "Do it in parts, or end what is not needed any more.",
        )
    if isinstance(result, SessionExpired):
        return Error(
            "There is no such session, or no longer",
            ErrorCode.SESSION_EXPIRED,
            "Open another one; whether writes without an answer have happened is not known.",
        )
    if isinstance(result, TooLate):
        return Error(
            f"The deadline has passed: the log's time is {result.time_ms}",
            ErrorCode.TOO_LATE,
            "If it was not sent before, send it anew with another id and a later deadline.",
            time_ms=result.time_ms,
        )
    if isinstance(result, BadDeadline):
        return Error(
            f"The deadline is more than {result.limit_ms} ms beyond the log's time, "
            f"{result.time_ms}",
            ErrorCode.BAD_DEADLINE,
            "If it was not sent before, send it anew with another id and an earlier deadline.",
            time_ms=result.time_ms,
        )
    if isinstance(result, Forgotten):
        return Error(
            "The answer to this sequence was forgotten, because the client said that it has it",
            ErrorCode.UNKNOWN_OUTCOME,
            "Use a new sequence for each write.",
        )
    if isinstance(result, TooMany):
        return Error(
            f"There are {result.limit} {result.what} already",
            ErrorCode.BUSY,
            "Wait until some are acknowledged or expire.",
        )
    if isinstance(result, BadValue):
        return Error(result.reason, ErrorCode.BAD_REQUEST)
    return Error(
        f"The command at log index {index} was not understood, and changed nothing",
        ErrorCode.INTERNAL,
        "Are all members of the same version? Compare: raftctl status",
    )
