"""Requests about keys, but for transactions. Use them as members of `protocol`."""

from __future__ import annotations

import enum

from raft_agent.api.sessions import Once
from raft_agent.api.terms import BaseRequest, KeyText, Limit, Number, Revision


class Consistency(enum.StrEnum):
    LINEARIZABLE = "linearizable"
    LEASE = "lease"
    STALE = "stale"


class Put(BaseRequest, frozen=True, tag="put"):
    """`if_revision`: only when the key's mod revision is this one (-1: no condition; 0: absent).
    `lease`: the one that the key ends with (0: none, also when it had one before)."""

    key: str
    value: bytes
    if_revision: Revision = -1
    forward: bool = False
    once: Once = None
    lease: Number = 0


class Delete(BaseRequest, frozen=True, tag="delete"):
    key: str
    if_revision: Revision = -1
    forward: bool = False
    once: Once = None


class Get(BaseRequest, frozen=True, tag="get"):
    key: KeyText
    consistency: Consistency = Consistency.LINEARIZABLE


class List(BaseRequest, frozen=True, tag="list"):
    """Keys that start with `prefix`, in byte order, those after the key `after` only."""

    prefix: KeyText = ""
    limit: Limit = 1000
    after: KeyText = ""
    consistency: Consistency = Consistency.LINEARIZABLE


class WatchKeys(BaseRequest, frozen=True, tag="watch_keys"):
    """Changes of one key, or with `prefix` of all keys below it, as they are applied here: from now
    on, or those of the store's revision `from_revision` and later, if they are kept. `bookmark_ms`:
    how often to say up to which revision all was told, when that has moved (0: never)."""

    key: KeyText
    prefix: bool = False
    from_revision: Number = 0
    bookmark_ms: Number = 0
