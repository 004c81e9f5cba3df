"""The message log, and watches of messages and of keys, each begun in the past and over again."""

from __future__ import annotations

import asyncio
from typing import Any

from raft_agent.api.client import HistoryCompacted, RaftClientError
from tests.torture.clients.session import Session
from tests.torture.history import Record, now_ns

WATCH_S = 12.0


async def run_messages(session: Session) -> None:
    while not session.pace.ends.is_set():
        text = session.fresh()
        await session.do("send", lambda t=text: session.client.send(t), args=[text])
        await session.pace.pause(session.chance, 2)


async def run_message_watch(session: Session) -> None:
    """All messages from the first on, over whatever connections."""
    after = 0
    while not session.pace.ends.is_set():
        watch = session.client.watch_messages(after)
        try:
            async for item in _until_ended(session, watch):
                after = item.index
                _note(session, "message", out=item.text, index=item.index)
        except RaftClientError:
            await asyncio.sleep(0.2)
        finally:
            await watch.close()


async def run_key_watch(session: Session) -> None:
    """Changes of all keys, for a while from some revision on; the next watch begins where this one
    ended, or further back, or where the store is."""
    revision = 1
    while not session.pace.ends.is_set():
        start = max(revision - session.chance.choice([0, 0, 50, 400]), 1)
        watch = session.client.watch_keys("", prefix=True, from_revision=start, bookmark_ms=1000)
        told = start - 1
        stream = _number(session)
        try:
            await watch.start()
            _note(session, "begin", out=stream, args=[start], revision=start)
            async for event in _until_ended(session, watch, WATCH_S):
                value = event.value.decode(errors="replace")
                _note(
                    session,
                    "event",
                    out=stream,
                    args=[event.type, value, event.more],
                    revision=event.revision,
                    index=event.index,
                    key=event.key,
                )
                # Only once all of a revision is there may another watch begin behind it.
                told = told if event.more else event.revision
            revision = told + 1
        except HistoryCompacted as error:
            revision = error.oldest
        except RaftClientError:
            await asyncio.sleep(0.2)
            revision = told + 1
        finally:
            await watch.close()


def _number(session: Session) -> str:
    return f"w{session.fresh()}"


def _note(session: Session, op: str, **facts: Any) -> None:
    now = now_ns()
    session.note(Record(session.number, session.kind, op, now, now, "ok", **facts))


async def _until_ended(session: Session, watch: Any, seconds: float = 1e9) -> Any:
    """Items of the watch until the run ends, or for so long."""
    ends = asyncio.ensure_future(session.pace.ends.wait())
    deadline = asyncio.get_running_loop().time() + seconds
    try:
        while not ends.done():
            item = asyncio.ensure_future(watch.__anext__())
            left = deadline - asyncio.get_running_loop().time()
            await asyncio.wait(
                [item, ends], timeout=max(left, 0), return_when=asyncio.FIRST_COMPLETED
            )
            if not item.done():
                item.cancel()
                await asyncio.gather(item, return_exceptions=True)
                return
            yield item.result()
    finally:
        ends.cancel()
