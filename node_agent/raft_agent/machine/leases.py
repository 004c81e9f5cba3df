"""Leases: keys that end when nobody keeps them alive.

A lease ends by a command in the log and by nothing else; no clock counts here. The leader proposes
the end of one that was not renewed for its time (`lease_clock.py`), and names the renewal that it
saw last: when another one comes before that in the log, the command has no effect.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from raft_agent.machine.commands import PutLeased
from raft_agent.machine.results import (
    BadValue,
    CommandResult,
    ConditionFailed,
    LeaseGone,
    LeaseGranted,
    LeaseKept,
    LimitReached,
    StateResult,
    WriteDone,
)
from raft_agent.machine.store import Store

MIN_TTL_MS = 1_000
MAX_TTL_MS = 365 * 24 * 3_600_000
MAX_LEASES = 65_536
# All of them go in one moment, at one revision.
MAX_KEYS_OF_A_LEASE = 10_000


class Lease(msgspec.Struct):
    """`renewed_index` and `renewed_ms`: the log index and the log's time of the command that
    granted it or kept it alive last. `keys` end with it. `view` counts the snapshot views before
    this object was made: one that came later shares it, so that it is copied before it changes.
    """

    id: int
    ttl_ms: int
    renewed_index: int
    renewed_ms: int
    keys: dict[str, None] = {}
    view: int = 0


class Leases:
    """All leases, by id. `lease_of`: of the keys that end with one.

    `renewed` gathers the ids of those that were granted or kept alive, while somebody wants to
    know (`track`).
    """

    def __init__(self) -> None:
        self.lease_of: dict[str, int] = {}
        self.renewed: list[int] = []
        self._tracks = False
        self._leases: dict[int, Lease] = {}
        self._view = 0

    def __len__(self) -> int:
        return len(self._leases)

    def __contains__(self, lease_id: int) -> bool:
        return lease_id in self._leases

    def __iter__(self) -> Iterator[Lease]:
        return iter(self._leases.values())

    def get(self, lease_id: int) -> Lease | None:
        return self._leases.get(lease_id)

    def track(self, wanted: bool) -> None:
        """Gather in `renewed` from now on, or no longer."""
        self._tracks = wanted
        self.renewed = []

    def put_back(self, lease: Lease) -> None:
        """Add a lease, without its keys."""
        self._leases[lease.id] = lease

    def renew(self, lease_id: int, index: int, time_ms: int) -> Lease | None:
        """It lives on from here; None when there is no such lease."""
        lease = self._own(lease_id)
        if lease is not None:
            lease.renewed_index = index
            lease.renewed_ms = time_ms
            self.was_renewed(lease_id)
        return lease

    def was_renewed(self, lease_id: int) -> None:
        if self._tracks:
            self.renewed.append(lease_id)

    def remove(self, lease_id: int) -> list[str]:
        """The keys that end with it, in byte order, which belong to no lease any more."""
        lease = self._leases.pop(lease_id)
        for key in lease.keys:
            del self.lease_of[key]
        return sorted(lease.keys)

    def attach(self, key: str, lease_id: int) -> None:
        """`key`, which belongs to no lease, ends with this one, which is there."""
        lease = self._own(lease_id)
        if lease is None:
            raise KeyError(lease_id)
        lease.keys[key] = None
        self.lease_of[key] = lease_id

    def detach(self, key: str) -> None:
        """`key` ends with no lease any more, if it did with one."""
        lease_id = self.lease_of.pop(key, 0)
        lease = self._own(lease_id)
        if lease is not None:
            del lease.keys[key]

    def room_of(self, lease_id: int) -> int:
        """How many more keys the lease may have."""
        return MAX_KEYS_OF_A_LEASE - len(self._leases[lease_id].keys)

    def too_many_keys(self) -> LimitReached:
        return LimitReached("keys of this lease", MAX_KEYS_OF_A_LEASE)

    def _own(self, lease_id: int) -> Lease | None:
        """The lease, which may be changed."""
        lease = self._leases.get(lease_id)
        if lease is not None and lease.view < self._view:
            lease = msgspec.structs.replace(lease, keys=lease.keys.copy(), view=self._view)
            self._leases[lease_id] = lease
        return lease

    @property
    def view(self) -> int:
        """What a new lease has for its `view`."""
        return self._view

    def frozen(self) -> list[Lease]:
        """The leases of this moment; none of these objects changes any more."""
        self._view += 1
        return list(self._leases.values())


def put_leased(store: Store, command: PutLeased, index: int) -> StateResult:
    """Put a key that ends with a lease."""
    leases, key, lease_id = store.leases, command.key, command.lease
    old = store.get(key)
    actual = 0 if old is None else old.revision
    if command.if_revision not in (-1, actual):
        return ConditionFailed(actual)
    if lease_id not in leases:
        return LeaseGone(lease_id)
    if leases.lease_of.get(key) != lease_id and not leases.room_of(lease_id):
        return leases.too_many_keys()
    refusal = store.exports.refusal(key, command.value, is_there=old is not None)
    if refusal is not None:
        return refusal
    revision = store.revision + 1
    store.change(key, command.value, revision=revision, index=index, lease=lease_id)
    return WriteDone(revision)


def grant(store: Store, ttl_ms: int, index: int) -> StateResult:
    """A new lease; its id is the index behind the floor, which no other one has."""
    leases = store.leases
    if not MIN_TTL_MS <= ttl_ms <= MAX_TTL_MS:
        return BadValue(f"A lease's time is from {MIN_TTL_MS} to {MAX_TTL_MS} ms, not {ttl_ms}")
    if len(leases) >= MAX_LEASES:
        return LimitReached("leases", MAX_LEASES)
    lease_id = store.floor + index
    leases.put_back(Lease(lease_id, ttl_ms, index, store.time_ms, view=leases.view))
    leases.was_renewed(lease_id)
    return LeaseGranted(lease_id, ttl_ms)


def keep(store: Store, lease_id: int, index: int) -> CommandResult:
    """The lease has all of its time again."""
    lease = store.leases.renew(lease_id, index, store.time_ms)
    return LeaseGone(lease_id) if lease is None else LeaseKept(lease_id, lease.ttl_ms)


def revoke(store: Store, lease_id: int, index: int) -> StateResult:
    """End the lease now, and all its keys at one revision."""
    if lease_id not in store.leases:
        return LeaseGone(lease_id)
    keys = store.leases.remove(lease_id)
    revision = store.revision + 1
    for key in keys:
        store.change(key, None, revision=revision, index=index, lease=lease_id)
    return WriteDone(store.revision, len(keys))


def expire(store: Store, lease_id: int, renewed_index: int, index: int) -> CommandResult:
    """As `revoke`, unless the lease was renewed behind `renewed_index`."""
    lease = store.leases.get(lease_id)
    if lease is not None and lease.renewed_index != renewed_index:
        return LeaseKept(lease_id, lease.ttl_ms)
    return revoke(store, lease_id, index)
