"""Single keys: put, delete, compare-and-set by revision, and reads of every consistency."""

from __future__ import annotations

import asyncio
from typing import Any

from raft_agent.api import protocol
from raft_agent.api.protocol import Consistency
from tests.torture.clients.session import Session

KEYS = 4
# Reads that an impatient client leaves unanswered before it asks no more.
_MOST_WAITING = 40


def value_of(found: protocol.KeyValue | None) -> Any:
    return None if found is None else found.value.decode()


def _read(found: protocol.KeyValue | None) -> list[Any]:
    """[value, revision, age_ms] of a read; all null when there is no such key."""
    if found is None:
        return [None, None, None]
    return [found.value.decode(), found.revision, found.age_ms]


async def run(session: Session) -> None:
    chance, client = session.chance, session.client
    while not session.pace.ends.is_set():
        key = f"r/{session.pace.generation()}/{chance.randrange(KEYS)}"
        match chance.choices(
            ["get", "lease_get", "stale_get", "put", "cas", "delete"], [5, 2, 2, 4, 3, 1]
        ):
            case ["get"]:
                await get(session, key, Consistency.LINEARIZABLE)
            case ["lease_get"]:
                await get(session, key, Consistency.LEASE)
            case ["stale_get"] if chance.random() < 0.5:
                await get(session, key, Consistency.STALE)
            case ["stale_get"]:
                await _list_stale(session, key)
            case ["put"]:
                value = session.fresh()
                await session.do(
                    "put", lambda k=key, v=value: client.put(k, v.encode()), key=key, args=[value]
                )
            case ["delete"]:
                await session.do(
                    "delete", lambda k=key: client.delete(k), key=key, out=lambda d: d.deleted > 0
                )
            case ["cas"]:
                await _compare_and_set(session, key)
        await session.pace.pause(chance)


async def run_impatient(session: Session) -> None:
    """Reads that do not wait for each other. Whoever waits for each answer has asked a leader that
    is stopped before another one leads, and may be told what was right then; these go on asking it
    while the other one writes."""
    chance, waiting = session.chance, set[asyncio.Task[Any]]()
    async with asyncio.TaskGroup() as reads:  # which raises a mistake of the workload's own
        while not session.pace.ends.is_set():
            if len(waiting) < _MOST_WAITING:
                key = f"r/{session.pace.generation()}/{chance.randrange(KEYS)}"
                consistency = chance.choice([Consistency.LINEARIZABLE, Consistency.LEASE])
                task = reads.create_task(get(session, key, consistency))
                waiting.add(task)
                task.add_done_callback(waiting.discard)
            await session.pace.pause(chance, 2)


async def get(
    session: Session, key: str, consistency: Consistency
) -> protocol.KeyValue | bool | None:
    """The key, or False when nobody said."""
    outcome, found, _ = await session.do(
        f"get_{consistency}",
        lambda: session.client.get(key, consistency=consistency),
        key=key,
        out=_read,
    )
    return found if outcome == "ok" else False


async def _list_stale(session: Session, key: str) -> None:
    """A list says how old it is even where there is no such key."""
    await session.do(
        "get_stale",
        lambda: session.client.list(key, consistency=Consistency.STALE),
        key=key,
        out=lambda found: [*(_read(found.keys[0]) if found.keys else [None, 0])[:2], found.age_ms],
    )


async def _compare_and_set(session: Session, key: str) -> None:
    """A put that is done only at the revision that was read before, or when there was no key."""
    found = await get(session, key, Consistency.LINEARIZABLE)
    if isinstance(found, bool):
        return
    revision = 0 if found is None else found.revision
    value = session.fresh()
    await session.do(
        "cas",
        lambda: session.client.put(key, value.encode(), if_revision=revision),
        key=key,
        args=[value_of(found), value],
    )
