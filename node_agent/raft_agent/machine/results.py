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


class LeaseGranted(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    lease: int
    ttl_ms: int


class LeaseGone(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """Nothing was changed: there is no such lease, or no longer."""

    lease: int


class FoundKey(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A key that a transaction has read. `lease`: the one that it ends with, or 0."""

    key: str
    value: bytes
    revision: int
    create_revision: int
    version: int
    lease: int = 0


class OperationDone(msgspec.Struct, frozen=True, array_like=True):
    """What one operation of a transaction came to: how many keys it deleted, and which it found;
    `more`: keys were left out.
    """

    deleted: int = 0
    more: bool = False
    keys: list[FoundKey] = []


class TransactionDone(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """`succeeded`: all compares held. `revision` is the store's after it. `results`: of the
    operations that were done, in their order.
    """

    succeeded: bool
    revision: int
    results: list[OperationDone]


class LimitReached(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False):
    """Nothing was changed: it would have been more than `limit` of `what`."""

    what: str
    limit: int


class BadValue(msgspec.Struct, frozen=True, array_like=True, tag=7, gc=False):
    """Nothing was changed; `reason` says what would be right."""

    reason: str


class BadCommand(msgspec.Struct, frozen=True, gc=False):
    """Nothing was changed: the log holds bytes here that are no command of this version."""


StateResult: TypeAlias = (
    WriteDone
    | ConditionFailed
    | LeaseGranted
    | LeaseGone
    | TransactionDone
    | LimitReached
    | BadValue
)


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


class LeaseKept(msgspec.Struct, frozen=True, gc=False):
    """The lease lives, and has `ttl_ms` from its last renewal on."""

    lease: int
    ttl_ms: int


class TooMany(msgspec.Struct, frozen=True, gc=False):
    """Nothing was changed: there are `limit` of `what` already."""

    what: str
    limit: int


class SettingDone(msgspec.Struct, frozen=True, gc=False):
    """The setting has the new value; `revision` is the store's."""

    revision: int


class StatesDisputed(msgspec.Struct, frozen=True, gc=False):
    """Nothing was changed: no quorum of members had equal states behind the entry `index`."""

    index: int


class VersionDone(msgspec.Struct, frozen=True, gc=False):
    """`version` is the cluster version in force."""

    version: int


CommandResult: TypeAlias = (
    StateResult
    | StatesDisputed
    | BadCommand
    | LeaseKept
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
    | VersionDone
)
