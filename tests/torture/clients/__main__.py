"""The clients of a run, all in one process: `python -m tests.torture.clients SPEC HISTORY`.

They work until a line comes in on standard input, or its end; then everything is read once more,
the watches catch up with that, and the process ends with status 0.
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
from tests.torture.history import WATCHES, Record, Writer, now_ns

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
CATCH_UP_S = 20.0
_FLUSH_S = 0.2


async def _work(spec: Spec, book: Writer) -> None:
    files = TlsFiles(spec.ca, spec.cert, spec.key)
    endpoints = [Endpoint(address, files) for address in spec.addresses]
    pace = Pace(spec.pause_s)
    sessions: list[Session] = []
    working: list[asyncio.Task[None]] = []
    watching: list[asyncio.Task[None]] = []
    for kind, count, run in KINDS:
        for _ in range(count):
            number = len(sessions) + 1
            chance = random.Random(f"{spec.seed}/{number}")
            session = Session(
                kind, number, endpoints=endpoints, book=book, pace=pace, chance=chance
            )
            sessions.append(session)
            tasks = watching if kind in WATCHES else working
            tasks.append(asyncio.create_task(_run(run, session)))
    ticker = asyncio.create_task(_flush(book))
    told = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), told.set)
    ending = asyncio.create_task(told.wait())
    await asyncio.wait([ending, *working, *watching], return_when=asyncio.FIRST_COMPLETED)
    ending.cancel()
    pace.ends.set()
    await asyncio.gather(*working)  # which raises a mistake of the workload's own
    pace.last.set_result(await _read_again(endpoints, book))
    await _catch_up(watching)
    for session in sessions:
        await session.close()
    ticker.cancel()
    book.flush()


async def _run(run: Run, session: Session) -> None:
    await run(session)


async def _catch_up(watching: list[asyncio.Task[None]]) -> None:
    """Until all are told of what was read last; who is not in time has noted too little, which a
    check finds."""
    done, late = await asyncio.wait(watching, timeout=CATCH_UP_S)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    for task in done:
        task.result()  # which raises a mistake of the workload's own


async def _flush(book: Writer) -> None:
    while True:
        await asyncio.sleep(_FLUSH_S)
        book.flush()


async def _read_again(endpoints: list[Endpoint], book: Writer) -> tuple[int, int]:
    """All keys and messages as they are in the end; the store's revision then and the index of the
    last message. The keys are those of the revisions from `revision` to `args[0]`, since leases
    still end."""
    async with Client(endpoints, timeout_s=READ_AGAIN_S) as client:
        called, first_revision, after = now_ns(), 0, ""
        keys: list[list[object]] = []
        while True:
            page = await client.list(after=after)
            first_revision = first_revision or page.revision
            keys += [
                [item.key, item.value.decode(errors="replace"), item.revision, item.version]
                for item in page.keys
            ]
            if not page.more:
                break
            after = page.keys[-1].key
        end = Record(0, "end", "keys", called, now_ns(), "ok", args=[page.revision], out=keys)
        end.revision = first_revision
        book.add(end)
        messages = await _all_messages(client)
        book.add(messages)
        return page.revision, messages.index


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
