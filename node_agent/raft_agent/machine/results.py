"""What the machine answers to each command.

Results that are remembered for a retry are part of the state, so their encoding never changes.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec


class WriteDone(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """`revision` is the store's after the command; `deleted` counts the keys it removed."""

    revision: int
    deleted: int = 0


class ConditionFailed(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """Nothing was changed: the key is at `actual_revision` (0: it does not exist)."""

    actual_revision: int


class BadCommand(msgspec.Struct, frozen=True, gc=False):
    """Nothing was changed: the log holds bytes here that are no command of this version."""


StateResult: TypeAlias = WriteDone | ConditionFailed


class Repeated(msgspec.Struct, frozen=True, gc=False):
    """Nothing was changed: the command was applied before, as the entry `index` of `term`, with
    this `result`.
    """

    index: int
    term: int
    result: StateResult


class Forgotten(msgspec.Struct, frozen=True, gc=False):
    """Nothing was changed: the client said that it has the result of this sequence already."""


class SessionOpened(msgspec.Struct, frozen=True, gc=False):
    session: int


class SessionKept(msgspec.Struct, frozen=True, gc=False):
    pass


class SessionClosed(msgspec.Struct, frozen=True, gc=False):
    pass


class SessionExpired(msgspec.Struct, frozen=True, gc=False):
    """Nothing was changed: there is no such session, or no longer."""


class TooLate(msgspec.Struct, frozen=True, gc=False):
    """Nothing was changed: the log's time `time_ms` is beyond the command's deadline."""

    time_ms: int


class BadDeadline(msgspec.Struct, frozen=True, gc=False):
    """Nothing was changed: the deadline is further than `limit_ms` beyond the log's time `time_ms`,
    so the result would have to be remembered for too long."""

    time_ms: int
    limit_ms: int


class TooMany(msgspec.Struct, frozen=True, gc=False):
    """Nothing was changed: there are `limit` of `what` already."""

    what: str
    limit: int


class SettingDone(msgspec.Struct, frozen=True, gc=False):
    """The setting has the new value; `revision` is the store's."""

    revision: int


class BadValue(msgspec.Struct, frozen=True, gc=False):
    """Nothing was changed; `reason` says what would be right."""

    reason: str


CommandResult: TypeAlias = (
    WriteDone
    | ConditionFailed
    | BadCommand
    | Repeated
    | Forgotten
    | SessionOpened
    | SessionKept
    | SessionClosed
    | SessionExpired
    | TooLate
    | BadDeadline
    | TooMany
    | SettingDone
    | BadValue
)
