"""What systemd is told about this process: sd_notify(3), with Type=notify and WatchdogSec=."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time

# How far off the end of a start is put, again and again while it goes on.
_EXTENSION_S = 60.0

log = logging.getLogger("raft.runtime")


class Supervisor:
    """Tells systemd when the agent serves, reloads and stops, and that its event loop turns.

    Does nothing where NOTIFY_SOCKET is not set. Needs a running loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        self._interval_s = _watchdog_interval_s()
        self._timer: asyncio.TimerHandle | None = None
        self._was_ready = False

    def starting(self) -> None:
        """The first start goes on, and takes as long as it takes: until `ready` its time limit is
        put off for as long as the loop turns."""
        # sd_notify(3): one that still lies ahead is not brought forward by this.
        self._tell(f"EXTEND_TIMEOUT_USEC={int(_EXTENSION_S * 1e6)}")
        self._timer = self._loop.call_later(_EXTENSION_S / 3, self.starting)

    def ready(self) -> None:
        """The agent serves; from here on silence of its loop is a reason to restart it."""
        self._tell("READY=1", "STATUS=")
        if not self._was_ready:
            self._was_ready = True
            self._cancel()
            self._watch()

    def waiting(self, reason: str) -> None:
        """It lives but can't serve for now; `systemctl status` shows the reason."""
        self._tell(f"STATUS={reason}")

    def reloading(self) -> None:
        # Whoever was not ready must not become so by a reload.
        if self._was_ready:
            self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def reloaded(self) -> None:
        """As before: what it waits for is still its status."""
        if self._was_ready:
            self._tell("READY=1")

    def stopping(self) -> None:
        """The watchdog is over too: systemd has its own time limit for the end."""
        self._tell("STOPPING=1")
        self._cancel()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _watch(self) -> None:
        # A timer of the loop, not a thread: what has to be alive is the loop.
        if self._interval_s is not None:
            self._tell("WATCHDOG=1")
            self._timer = self._loop.call_later(self._interval_s, self._watch)

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        # "@" stands for the zero byte in front of an abstract address.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            try:
                sender.sendto("\n".join(lines).encode(), address)
            except OSError as error:
                log.debug("systemd can't be told %s: %s", lines[0], error)


def _watchdog_interval_s() -> float | None:
    """A third of the time after which systemd gives up; None when it does not watch us."""
    limit_us = os.environ.pop("WATCHDOG_USEC", "")
    watched_pid = os.environ.pop("WATCHDOG_PID", str(os.getpid()))
    with contextlib.suppress(ValueError):
        if int(watched_pid) == os.getpid() and int(limit_us) > 0:
            return int(limit_us) / 3_000_000
    return None
