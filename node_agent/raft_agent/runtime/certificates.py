"""The certificates of a running node: follows their files, and says when they end."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Protocol

from raft_agent.config import Config
from raft_agent.tls.errors import TlsError
from raft_agent.tls.identity import Identity, Kind

if TYPE_CHECKING:
    from raft_agent.tls.credentials import Credentials
    from raft_agent.tls.security import Security

LOOK_EVERY_S = 1.0
# A warning a day, from so long before the end on.
WARN_BEFORE = datetime.timedelta(days=30)
_WARN_EVERY = datetime.timedelta(days=1)


class Tell(Protocol):
    """Makes an event of what happened."""

    def __call__(self, kind: str, **facts: int | str) -> None: ...


class Certificates:
    """Everything about TLS of one node. Made, used and stopped in the event loop."""

    def __init__(self, credentials: Credentials, security: Security, tell: Tell) -> None:
        self.security = security
        self._credentials = credentials
        self._tell = tell
        self._warned: datetime.datetime | None = None
        # Files are read in a thread: they may lie anywhere.
        self._reading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def not_after(self) -> float:
        """When the node's own certificate ends, in seconds since 1970."""
        return self._credentials.not_after.timestamp()

    def start(self) -> None:
        """Follow the files from now on."""
        self._say_what_ends()
        self._spawn(self._follow())

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    def reload(self) -> None:
        """Read the files soon, whether they have changed or not."""
        self._spawn(self._read(self._credentials.reload))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self._read(self._credentials.reload_if_changed)
            self._say_what_ends()

    async def _read(self, read: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        async with self._reading:
            try:
                was_read = await loop.run_in_executor(None, read)
            except TlsError as error:
                self._tell("certificates_refused", reason=str(error))
                return
        if was_read:
            self._warned = None
            self._tell("certificates_read", ends=_day(self._credentials.not_after))
            self.security.check_again()

    def _say_what_ends(self) -> None:
        now = datetime.datetime.now(datetime.UTC)
        if self._warned is not None and now - self._warned < _WARN_EVERY:
            return
        self._warned = now
        loaded = self._credentials.loaded
        if loaded.not_after - now < WARN_BEFORE:
            file = self._credentials.files.cert
            self._tell("certificate_ends", file=file, ends=_day(loaded.not_after))
        if loaded.authorities_end - now < WARN_BEFORE:
            file = self._credentials.files.ca
            self._tell("authority_ends", file=file, ends=_day(loaded.authorities_end))
        if loaded.crl_due is not None and loaded.crl_due < now:
            file = self._credentials.files.crl
            self._tell("crl_is_old", file=file, due=_day(loaded.crl_due))


def make_credentials(config: Config) -> Credentials | None:
    """None without [tls]. Raises TlsError when a file can't be used."""
    files = config.tls.files
    if files is None:
        return None
    # An agent without it stays small: the library behind it takes some MB.
    from raft_agent.tls.credentials import Credentials  # noqa: PLC0415

    return Credentials(files, Identity(Kind.NODE, config.server.node_id))


def make_certificates(
    config: Config, credentials: Credentials | None, tell: Tell
) -> Certificates | None:
    """None without [tls]. Call in the event loop."""
    if credentials is None:
        return None
    from raft_agent.tls.security import Security  # noqa: PLC0415

    security = Security(credentials, clear_headers=config.tls.clear_headers)
    return Certificates(credentials, security, tell)


def _day(moment: datetime.datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
