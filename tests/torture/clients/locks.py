"""Locks on leases, whose holders write under their fencing tokens; and leases with one key each."""

from __future__ import annotations

import asyncio
import contextlib

from raft_agent.api import protocol
from raft_agent.api.client import RaftClientError
from raft_agent.api.protocol import PutKey
from tests.torture.clients.session import Session
from tests.torture.history import Record, now_ns

LOCK_TTL_S = 2.0
LEASE_TTL_S = 1.5
LOCKS = 2
# Before the name of a lock: the key that it protects.
FENCED = "f/"


async def run_locks(session: Session) -> None:
    """Take a lock, write some times what it protects, give it back."""
    while not session.pace.ends.is_set():
        name = f"l{session.chance.randrange(LOCKS)}"
        lock = session.client.lock(name, ttl_s=LOCK_TTL_S)
        try:
            await lock.acquire(timeout_s=8.0)
        except (RaftClientError, TimeoutError):
            await session.pace.pause(session.chance, 2)
            continue
        token, held_ns = lock.token, now_ns()
        sure_ns = held_ns
        try:
            for _ in range(session.chance.randrange(1, 12)):
                # What this protects checks the token itself, so a late write does nothing.
                await session.do(
                    "fenced",
                    lambda lk=lock, t=token, n=name: session.client.txn(
                        [lk.guard()], [PutKey(FENCED + n, str(t).encode())]
                    ),
                    key=name,
                    args=[token],
                    out=lambda done: done.succeeded,
                )
                asked_ns = now_ns()
                if lock.left_s() <= 0 or lock.lost.is_set():
                    break
                sure_ns = asked_ns
                await session.pace.pause(session.chance)
        finally:
            session.note(
                Record(
                    *(session.number, session.kind, "held", held_ns, sure_ns, "ok", name, [token])
                )
            )
            with contextlib.suppress(RaftClientError, TimeoutError):
                await lock.release()
        await session.pace.pause(session.chance, 2)


async def run_leases(session: Session) -> None:
    """Grant a lease with a key, keep it alive for a while, then let it end."""
    client = session.client
    while not session.pace.ends.is_set():
        outcome, granted, _ = await session.do(
            "grant", lambda: client.lease_grant(LEASE_TTL_S), out=lambda found: found.lease
        )
        if outcome != "ok" or granted is None:
            await session.pace.pause(session.chance, 2)
            continue
        lease = granted.lease
        key = f"e/{lease}"
        await session.do(
            "put_leased",
            lambda k=key, i=lease: client.put(k, b"x", lease=i),
            key=key,
            args=[lease],
        )
        for _ in range(session.chance.randrange(6)):
            await asyncio.sleep(session.chance.uniform(0.1, LEASE_TTL_S / 2))
            outcome, _, code = await session.do(
                "keep", lambda i=lease: client.lease_keepalive(i), key=key, args=[lease]
            )
            if code == str(protocol.ErrorCode.LEASE_NOT_FOUND):
                break
            await session.do(
                "see", lambda k=key: client.get(k), key=key, out=lambda item: item is not None
            )
        if session.chance.random() < 0.3:
            await session.do(
                "revoke", lambda i=lease: client.lease_revoke(i), key=key, args=[lease]
            )
