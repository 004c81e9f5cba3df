"""How a write is applied once although it may be sent often. Use these as members of `protocol`."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from raft_agent.api.terms import BaseRequest, Number, OneShotId


class SessionRef(msgspec.Struct, frozen=True, array_like=True, tag="session", gc=False):
    """Apply the write once, however often it is sent: it is number `sequence` of this session, and
    the client has the answers to all numbers below `acked_below`, which is not above `sequence`.
    """

    session: Number
    sequence: Number
    acked_below: Number


class OneShot(msgspec.Struct, frozen=True, array_like=True, tag="one_shot", gc=False):
    """Apply the write once, however often it is sent, and never after the log's time `deadline_ms`
    (since 1970, at most ten minutes ahead). `request_id`: 16 random bytes.
    """

    request_id: OneShotId
    deadline_ms: Number


Once: TypeAlias = SessionRef | OneShot | None


class OpenSession(BaseRequest, frozen=True, tag="open_session"):
    """Begin a session, which ends when it is not used for `ttl_ms` (1 s to 24 h)."""

    ttl_ms: Number
    forward: bool = False


class KeepSession(BaseRequest, frozen=True, tag="keep_session"):
    """Let a session that is not used live on. The result is null."""

    session: Number
    forward: bool = False


class CloseSession(BaseRequest, frozen=True, tag="close_session"):
    """End a session, none of whose writes will be sent again. The result is null."""

    session: Number
    forward: bool = False
