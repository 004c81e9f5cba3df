"""`raftctl lock`: hold a lock while a command runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager

import click

from raft_agent.api.client import Client, Lock, LockLost
from raftctl.context import Context, agent_errors, current
from raftctl.errors import EXIT_INTERRUPTED, LOCK_LOST, CommandError
from raftctl.framework import RaftCommand, Utf8
from raftctl.output import printable
from raftctl.quantities import LeaseSeconds, Seconds

# What a command that is told to end has for it.
_KILL_AFTER_S = 10.0
# What shells make of a command that can't be run, or is not there.
_EXIT_CAN_NOT_RUN = 126
_EXIT_NO_COMMAND = 127
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command(
    cls=RaftCommand,
    action="hold the lock",
    examples="""
    raftctl --node node-02 lock backup -- ./backup.sh
    raftctl --node node-02 lock backup --wait 10 -- sh -c 'echo "I hold $RAFT_LOCK_TOKEN"'
    raftctl --node node-02 lock dump --quiet -- ./dump.sh > dump.sql
    raftctl --node node-02 lock maintenance
    """,
)
@click.argument("name", type=Utf8())
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--ttl",
    "ttl_s",
    type=LeaseSeconds(),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long after its holder dies the lock is released, from 1 to 31536000.",
)
@click.option(
    "--wait",
    "wait_s",
    type=Seconds(zero=True),
    metavar="SECONDS",
    help="Give up after so long (else never); 0: only if it is free.",
)
@click.option(
    "-q", "--quiet", is_flag=True, help="Leave standard output to COMMAND: print no token."
)
def lock(
    name: str, command: tuple[str, ...], ttl_s: float, wait_s: float | None, quiet: bool
) -> None:
    """Wait for the lock NAME, print its fencing token, and hold it while COMMAND runs, or until
    Ctrl+C when there is none.

    The token is greater for each later holder. COMMAND finds it in RAFT_LOCK_TOKEN, and the lock's
    key in RAFT_LOCK_KEY: that key has the token as its create revision for as long as the lock is
    held, so a transaction that compares it does nothing once the lock was lost. When it is lost,
    COMMAND is told to end (SIGTERM). The exit status is COMMAND's; 3 when the lock was lost.
    """
    if not name:
        raise click.UsageError("a lock needs a name")
    context = current()
    status = asyncio.run(_lock(context, name, command, ttl_s, wait_s, quiet=quiet))
    click.get_current_context().exit(status)


async def _lock(
    context: Context,
    name: str,
    command: tuple[str, ...],
    ttl_s: float,
    wait_s: float | None,
    *,
    quiet: bool,
) -> int:
    with context.client():
        pass  # who can't be reached at all is told so in the usual words
    stop = _Stop()
    async with Client(context.target(), timeout_s=context.timeout_s, forward=True) as client:
        held = client.lock(name, ttl_s=ttl_s)
        if not await _acquired(context, held, wait_s, stop):
            return EXIT_INTERRUPTED
        try:
            if not quiet:
                _tell(context, held)
            if command:
                return await _run(command, held, stop)
            await _first(stop.came.wait(), held.lost.wait())
            if held.lost.is_set():
                raise _lost(held)
            return 0
        finally:
            await held.release()


class _Stop:
    """`came` is set once this process was told to end, by the signal `number`."""

    def __init__(self) -> None:
        self.came = asyncio.Event()
        self.number = signal.SIGTERM
        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._stop, number)

    def _stop(self, number: signal.Signals) -> None:
        self.number = number
        self.came.set()


def _tell(context: Context, held: Lock) -> None:
    """Print the token."""
    out = context.out
    out.result(
        f"{out.mark(True)} Locked: {printable(held.name)} (token {held.token})",
        {"lock": held.name, "token": held.token, "key": held.key},
    )


async def _acquired(context: Context, held: Lock, wait_s: float | None, stop: _Stop) -> bool:
    """Whether the lock is held now; not when this process was told to end."""

    def waits(holder: str) -> None:
        context.out.note(f"Waiting for {printable(holder)}...")

    # Even when it is to be taken only if it is free, that has to be found out.
    timeout_s = max(wait_s, context.timeout_s) if wait_s == 0 else wait_s
    with _client_errors(context):
        waiting = asyncio.ensure_future(
            held.acquire(timeout_s, waits=_refuse if wait_s == 0 else waits)
        )
        try:
            await _first(asyncio.shield(waiting), stop.came.wait())
            if waiting.done():
                await waiting
                return True
            return False
        except TimeoutError as late:
            if not held.key:
                raise CommandError(
                    f"The lock {held.name!r} could not be asked for within {wait_s:g} s",
                    "timed_out",
                    "Does the cluster have a leader? raftctl health",
                ) from late
            raise CommandError(
                f"The lock {held.name!r} was not free within {wait_s:g} s",
                "conflict",
                "Wait longer: --wait SECONDS; who holds it: raftctl propose list lock/",
            ) from late
        except _TakenError as taken:
            raise CommandError(
                f"The lock {held.name!r} is held by {taken}",
                "conflict",
                "Wait for it: --wait SECONDS",
            ) from taken
        finally:
            waiting.cancel()
            with contextlib.suppress(BaseException):
                await waiting


class _TakenError(Exception):
    """Somebody else holds the lock."""


def _refuse(holder: str) -> None:
    raise _TakenError(holder)


@contextmanager
def _client_errors(context: Context) -> Iterator[None]:
    try:
        with agent_errors(context.agent, writes=True):
            yield
    except LockLost as lost:
        raise CommandError(str(lost), "lease_not_found", "Try again") from lost


def _lost(held: Lock) -> CommandError:
    return CommandError(
        f"The lock {held.name!r} was lost: its lease could not be kept alive",
        LOCK_LOST,
        f"What was done meanwhile may not have been protected; its token was {held.token}",
    )


async def _first(*awaitables: Awaitable[object]) -> None:
    """Wait until one of them is done; the others are cancelled."""
    tasks = [asyncio.ensure_future(item) for item in awaitables]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _run(command: tuple[str, ...], held: Lock, stop: _Stop) -> int:
    """Run the command while the lock is held; its exit status as a shell gives it."""
    environment = {
        **os.environ,
        "RAFT_LOCK_NAME": held.name,
        "RAFT_LOCK_KEY": held.key,
        "RAFT_LOCK_TOKEN": str(held.token),
    }
    sys.stdout.flush()
    try:
        process = await asyncio.create_subprocess_exec(*command, env=environment)
    except OSError as failure:
        click.echo(f"✗ Can't run {printable(command[0])}: {failure.strerror}", err=True)
        missing = isinstance(failure, FileNotFoundError)
        return _EXIT_NO_COMMAND if missing else _EXIT_CAN_NOT_RUN
    ended = asyncio.ensure_future(process.wait())
    try:
        await _first(asyncio.shield(ended), stop.came.wait(), held.lost.wait())
    finally:
        if not ended.done():
            await _end(process, ended, stop.number)
    if held.lost.is_set():
        raise _lost(held)
    return ended.result() if ended.result() >= 0 else 128 - ended.result()


async def _end(
    process: asyncio.subprocess.Process, ended: asyncio.Future[int], number: signal.Signals
) -> None:
    """Pass the signal on, and SIGKILL when that is not enough."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
    _, still = await asyncio.wait([ended], timeout=_KILL_AFTER_S)
    if still:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await ended
