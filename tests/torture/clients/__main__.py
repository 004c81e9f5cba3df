"""The clients of a run, all in one process: `python -m tests.torture.clients SPEC HISTORY`.

They work until a line comes in on standard input, or its end; then the watches catch up, everything
is read once more, and the process ends with status 0.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import uvloop

from raft_agent.api.client import AgentNotReachable, Client, Endpoint, RaftClientError
from raft_agent.tls.files import TlsFiles
from tests.torture.clients import exported, growing, locks, registers, streams, transactions
from tests.torture.clients.session import Pace, Session
from tests.torture.clients.spec import Spec
from tests.torture.history import Record, Writer, now_ns

Run = Callable[[Session], Awaitable[None]]
# (kind, how many clients do it, what they do)
KINDS: tuple[tuple[str, int, Run], ...] = (
    ("register", 3, registers.run),
    ("register", 2, registers.run_impatient),
    ("txn", 2, transactions.run),
    ("set", 2, growing.run_set),
    ("list", 1, growing.run_list),
    ("counter", 2, growing.run_counter),
    ("once", 1, growing.run_once),
    ("lock", 2, locks.run_locks),
    ("lease", 2, locks.run_leases),
    ("message", 2, streams.run_messages),
    ("message_watch", 2, streams.run_message_watch),
    ("key_watch", 2, streams.run_key_watch),
    ("export", 1, exported.run),
)
READ_AGAIN_S = 20.0
_FLUSH_S = 1.0


async def _work(spec: Spec, book: Writer) -> None:
    files = TlsFiles(spec.ca, spec.cert, spec.key)
    endpoints = [Endpoint(address, files) for address in spec.addresses]
    pace = Pace(spec.pause_s)
    sessions: list[Session] = []
    running: list[asyncio.Task[None]] = []
    for kind, count, run in KINDS:
        for _ in range(count):
            number = len(sessions) + 1
            chance = random.Random(f"{spec.seed}/{number}")
            session = Session(
                kind, number, endpoints=endpoints, book=book, pace=pace, chance=chance
            )
            sessions.append(session)
            running.append(asyncio.create_task(_run(run, session)))
    ticker = asyncio.create_task(_flush(book))
    told = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), told.set)
    ending = asyncio.ensure_future(told.wait())
    working = asyncio.gather(*running)
    await asyncio.wait([ending, working], return_when=asyncio.FIRST_COMPLETED)
    ending.cancel()
    pace.ends.set()
    await working  # which raises a mistake of the workload's own
    await _read_again(spec, endpoints, book)
    for session in sessions:
        await session.close()
    ticker.cancel()
    book.flush()


async def _run(run: Run, session: Session) -> None:
    await run(session)


async def _flush(book: Writer) -> None:
    while True:
        await asyncio.sleep(_FLUSH_S)
        book.flush()


async def _read_again(spec: Spec, endpoints: list[Endpoint], book: Writer) -> None:
    """All keys and messages as they are in the end."""
    async with Client(endpoints, timeout_s=READ_AGAIN_S) as client:
        called = now_ns()
        keys = [
            [item.key, item.value.decode(errors="replace"), item.revision, item.version]
            async for item in client.scan()
        ]
        book.add(Record(0, "end", "keys", called, now_ns(), "ok", out=keys))
        book.add(await _all_messages(client))


async def _all_messages(client: Client) -> Record:
    """Every message that is kept. The read before was linearizable, and a message that the cluster
    takes in now is the last one that is waited for."""
    called = now_ns()
    last = await client.send("the last one")
    watch = client.watch_messages(0)
    found: list[list[object]] = []
    try:
        async with asyncio.timeout(READ_AGAIN_S):
            async for item in watch:
                found.append([item.index, item.text])
                if item.index >= last.index:
                    break
    except (TimeoutError, RaftClientError) as error:
        raise AgentNotReachable(f"the messages could not be read: {error}") from error
    finally:
        await watch.close()
    return Record(0, "end", "messages", called, now_ns(), "ok", out=found, index=last.index)


def main() -> int:
    spec = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Spec)
    book = Writer(Path(sys.argv[2]))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_work(spec, book))
    finally:
        book.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
