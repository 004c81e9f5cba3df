"""The agent as a process: start, signals, a full disk, the end."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from pathlib import Path

from raft_agent import logs
from raft_agent.config import Config, ConfigError, load
from raft_agent.logs import LogContext
from raft_agent.runtime.agent import Agent

log = logging.getLogger("raft.runtime")

# Room that must be there before a node with a full disk starts anew: two segments and some.
_ROOM_BYTES = 64 << 20
_ROOM_CHECK_S = 1.0


async def run(config: Config, context: LogContext) -> int:
    """Run until SIGTERM or SIGINT; the exit status.

    Raises StorageError or OSError when the node can't start, and whatever broke an invariant.
    """
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[None] = loop.create_future()

    def end() -> None:
        if not stop.done():
            stop.set_result(None)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    loop.add_signal_handler(signal.SIGHUP, _reload, config)
    while True:
        agent = Agent(config, context)
        try:
            await agent.start()
            _quiet_garbage_collector()
            await asyncio.wait([stop, agent.ended], return_when=asyncio.FIRST_COMPLETED)
            if not stop.done() and agent.disk_full:
                await _room(Path(config.server.data_dir), stop)
        finally:
            await agent.stop()
        if agent.ended.done():
            agent.ended.result()
        if stop.done():
            return 0
        log.info("there is room on the disk again: starting anew from what it holds")


async def _room(data_dir: Path, stop: asyncio.Future[None]) -> None:
    """Wait until the disk of `data_dir` has room again, or `stop`."""
    log.warning("the disk is full: waiting for %d MiB to be free", _ROOM_BYTES >> 20)
    while not stop.done():
        room = os.statvfs(data_dir)
        if room.f_bavail * room.f_frsize >= _ROOM_BYTES:
            return
        await asyncio.wait([stop], timeout=_ROOM_CHECK_S)


def _reload(config: Config) -> None:
    try:
        fresh = load(Path(config.path), overrides=config.overrides)
        logs.reload(fresh.server.log_level)
    except (ConfigError, ValueError, OSError) as error:
        log.error("SIGHUP: nothing was changed: %s", error)
    else:
        log.info("SIGHUP: log levels are now %s", fresh.server.log_level)


def _quiet_garbage_collector() -> None:
    """What is alive at start is never garbage; full collections would walk every key and stop the
    loop for as long. The hot path makes no cycles, so young generations are enough."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 1_000_000)
