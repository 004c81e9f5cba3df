"""The agent as a process: start, signals, a full disk, the end."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from raft_agent import logs
from raft_agent.config import Config, ConfigError, load
from raft_agent.logs import LogContext
from raft_agent.runtime.agent import Agent
from raft_agent.runtime.certificates import make_credentials
from raft_agent.runtime.held import open_held
from raft_agent.runtime.supervisor import Supervisor
from raft_agent.storage.aside import put_aside
from raft_agent.storage.errors import StorageError
from raft_agent.storage.files import shortage

log = logging.getLogger("raft.runtime")

_ROOM_CHECK_S = 1.0
_STARTING_ANEW = "starting anew from what the disk holds"


async def run(config: Config, context: LogContext) -> int:
    """Run until SIGTERM or SIGINT; the exit status.

    Raises StorageError, TlsError or OSError when the node can't start, and whatever broke an
    invariant.
    """
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[None] = loop.create_future()
    supervisor = Supervisor(loop)

    def end() -> None:
        if not stop.done():
            supervisor.stopping()
            stop.set_result(None)

    agent: Agent | None = None

    def reload() -> None:
        supervisor.reloading()
        _reload_log_levels(config)
        if agent is not None:
            agent.reload_certificates()
        supervisor.reloaded()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    loop.add_signal_handler(signal.SIGHUP, reload)
    credentials = make_credentials(config)

    async def open_agent() -> Agent:
        # In a thread: reading all that a slow disk holds takes longer than the watchdog waits for a
        # loop that stands still.
        held = await loop.run_in_executor(None, open_held, config)
        return Agent(config, context, held, credentials)

    supervisor.starting()
    agent = await open_agent()
    while agent is not None:
        await _serve(agent, stop, supervisor)
        abandoned = agent.abandoned
        # A disk that was full, a state that was wrong, or data put aside: all keys of the former
        # node, which are frozen, go before others are read.
        agent = None
        gc.unfreeze()
        gc.collect()
        if abandoned and not stop.done():
            data_dir = Path(config.server.data_dir)
            target = await loop.run_in_executor(None, put_aside, data_dir, abandoned)
            log.warning("what this member had is in %s now; starting anew, empty", target)
        agent = await _open_again(open_agent, stop, supervisor)
    return 0


async def _serve(agent: Agent, stop: asyncio.Future[None], supervisor: Supervisor) -> None:
    """Run one node until `stop`, or until a full disk has room again. Raises what ended it."""
    try:
        await agent.start()
        _quiet_garbage_collector()
        if not stop.done():
            supervisor.ready()
        await asyncio.wait([stop, agent.ended], return_when=asyncio.FIRST_COMPLETED)
        if not stop.done() and agent.shortage:
            log.warning(_waits(agent.shortage))
            supervisor.waiting(_waits(agent.shortage))
            await _room(agent, stop)
    finally:
        await agent.stop()
    if agent.ended.done():
        agent.ended.result()


async def _open_again(
    open_agent: Callable[[], Awaitable[Agent]],
    stop: asyncio.Future[None],
    supervisor: Supervisor,
) -> Agent | None:
    """A new agent on the same data, as soon as the disk has room for its start; None at `stop`."""
    supervisor.waiting(_STARTING_ANEW)
    while not stop.done():
        try:
            log.info(_STARTING_ANEW)
            return await open_agent()
        except StorageError as error:
            lacks = shortage(error)
            if not lacks:
                raise
            log.warning("%s", error)
            supervisor.waiting(_waits(lacks))
        await asyncio.wait([stop], timeout=_ROOM_CHECK_S)
    return None


def _waits(lacks: str) -> str:
    return f"{lacks}: waiting until there is room again"


async def _room(agent: Agent, stop: asyncio.Future[None]) -> None:
    """Wait until there is enough again of what there was too little, or `stop`."""
    loop = asyncio.get_running_loop()
    while not stop.done():
        # Waits first, whatever is said of room: a start that fails at once is no tight loop.
        await asyncio.wait([stop], timeout=_ROOM_CHECK_S)
        if await loop.run_in_executor(None, agent.has_room):
            return


def _reload_log_levels(config: Config) -> None:
    try:
        fresh = load(Path(config.path), overrides=config.overrides)
        logs.reload(fresh.server.log_level)
    except (ConfigError, ValueError, OSError) as error:
        log.error("SIGHUP: the log levels stay as they are: %s", error)
    else:
        log.info("SIGHUP: log levels are now %s", fresh.server.log_level)


def _quiet_garbage_collector() -> None:
    """What is alive at start is never garbage; full collections would walk every key and stop the
    loop for as long. The hot path makes no cycles, so young generations are enough."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 1_000_000)
