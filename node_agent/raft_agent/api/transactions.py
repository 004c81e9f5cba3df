"""Transactions and leases in the API. Use them as members of `protocol`."""

from __future__ import annotations

import msgspec

from raft_agent.api.sessions import Once
from raft_agent.api.terms import BaseRequest, Number
from raft_agent.machine.transactions import Compare, Operation


class Txn(BaseRequest, frozen=True, tag="txn"):
    """Do `then` when all `compares` hold, else `otherwise`: all of it at one revision of the store,
    or nothing. No key may be changed twice."""

    compares: list[Compare]
    then: list[Operation]
    otherwise: list[Operation] = msgspec.field(default_factory=list)
    forward: bool = False
    once: Once = None


class LeaseGrant(BaseRequest, frozen=True, tag="lease_grant"):
    """Begin a lease, which ends when it is not kept alive for `ttl_ms` (1 s to a year)."""

    ttl_ms: Number
    forward: bool = False
    once: Once = None


class LeaseKeepalive(BaseRequest, frozen=True, tag="lease_keepalive"):
    """Give a lease all of its time again."""

    lease: Number
    forward: bool = False


class LeaseRevoke(BaseRequest, frozen=True, tag="lease_revoke"):
    """End a lease, and all its keys at one revision."""

    lease: Number
    forward: bool = False
    once: Once = None


class LeaseList(BaseRequest, frozen=True, tag="lease_list"):
    """All leases. `forward`: the leader answers when there is one, for it knows how much time each
    has left."""

    forward: bool = True


class LeaseShow(BaseRequest, frozen=True, tag="lease_show"):
    """One lease and its keys. `forward` as for LeaseList."""

    lease: Number
    forward: bool = True
