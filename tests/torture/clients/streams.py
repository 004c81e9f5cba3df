"""The message log, and watches of messages and of keys, each begun in the past and over again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from raft_agent.api import protocol
from raft_agent.api.client import HistoryCompacted, RaftClientError
from tests.torture.clients.session import Session
from tests.torture.history import Record, now_ns

WATCH_S = 12.0
_AGAIN_S = 0.2
_FROM_NOW_ON = 0.1
_BOOKMARKS = 0.5
_BOOKMARK_MS = 1000


async def run_messages(session: Session) -> None:
    while not session.pace.ends.is_set():
        text = session.fresh()
        await session.do("send", lambda t=text: session.client.send(t), args=[text])
        await session.pace.pause(session.chance, 2)


async def run_message_watch(session: Session) -> None:
    """All messages from the first on to the last, over whatever connections."""
    after = 0

    def is_over() -> bool:
        return session.pace.last.done() and after >= session.pace.last.result()[1]

    while not is_over():
        watch = session.client.watch_messages(after)
        try:
            async for item in _until(is_over, session, watch):
                after = item.index
                _note(session, "message", out=item.text, index=item.index)
        except RaftClientError:
            await asyncio.sleep(_AGAIN_S)
        finally:
            await watch.close()


async def run_key_watch(session: Session) -> None:
    """Changes of all keys, for a while from some revision on; the next watch begins where this one
    ended, or further back, or where the store is."""
    revision = 1

    def is_over() -> bool:
        return session.pace.last.done() and revision > session.pace.last.result()[0]

    while not is_over():
        start = max(revision - session.chance.choice([0, 0, 50, 400]), 1)
        if session.chance.random() < _FROM_NOW_ON:
            start = 0
        watch = session.client.watch_keys(
            "",
            prefix=True,
            from_revision=start,
            bookmarks=session.chance.random() < _BOOKMARKS,
            bookmark_ms=_BOOKMARK_MS,
        )
        stream = f"w{session.fresh()}"
        try:
            await watch.start()
            _note(session, "begin", out=stream, args=[start], revision=start)
            # A watch from now on is told nothing any more when nobody writes any more.
            until = is_over if start else session.pace.last.done
            async for event in _until(until, session, watch, WATCH_S):
                _note_event(session, stream, event)
                # Only once all of a revision is there may another watch begin behind it.
                if start and not event.more:
                    revision = event.revision + 1
        except HistoryCompacted as error:
            _note(session, "compacted", args=[start], revision=error.oldest)
            revision = error.oldest
        except RaftClientError:
            await asyncio.sleep(_AGAIN_S)
        finally:
            await watch.close()


def _note_event(session: Session, stream: str, event: protocol.KeyEvent) -> None:
    _note(
        session,
        "event",
        out=stream,
        args=[event.type, event.value.decode(errors="replace"), event.more],
        revision=event.revision,
        index=event.index,
        key=event.key,
    )


def _note(session: Session, op: str, **facts: Any) -> None:
    now = now_ns()
    session.note(Record(session.number, session.kind, op, now, now, "ok", **facts))


async def _until(
    is_over: Callable[[], bool], session: Session, watch: Any, seconds: float = 1e9
) -> AsyncIterator[Any]:
    """Items of the watch until it is over, or for so long."""
    last = session.pace.last
    deadline = asyncio.get_running_loop().time() + seconds
    while not is_over():
        item = asyncio.ensure_future(watch.__anext__())
        try:
            while not item.done():
                left = deadline - asyncio.get_running_loop().time()
                if left <= 0 or is_over():
                    return
                waited = [item] if last.done() else [item, last]
                await asyncio.wait(waited, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not item.done():
                item.cancel()
                await asyncio.gather(item, return_exceptions=True)
        yield item.result()
