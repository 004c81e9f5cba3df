"""Following a stream of the agent through its restarts."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING

import click

from raftctl.context import Context, agent_errors
from raftctl.errors import NOT_IN_THIS_VERSION, CommandError

if TYPE_CHECKING:
    from raft_agent.api import protocol

# Asking again would only give the same answer.
_FINAL = frozenset({"bad_request", "too_large", "internal", "compacted", NOT_IN_THIS_VERSION})


class Follower:
    """Iterates over what the stream gives, its `StreamStarted` included (one per connection).

    `request` is asked for anew with every connection, so that it can name where to go on. The first
    connection must succeed (CommandError otherwise); a later one is tried every `interval_ms`.
    As a context manager it turns Ctrl+C into the end that it is for a stream.
    """

    def __init__(
        self, context: Context, request: Callable[[], protocol.Request], interval_ms: int
    ) -> None:
        self._context = context
        self._request = request
        self._interval_s = interval_ms / 1000
        self._was_connected = False
        self._is_lost = False

    def __enter__(self) -> Follower:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if kind is not KeyboardInterrupt:
            return False
        if sys.stderr.isatty():
            click.echo(err=True)  # the terminal has echoed ^C
        return True

    def __iter__(self) -> Iterator[object]:
        while True:
            try:
                yield from self._one_connection()
                reason = "the agent closed it"
            except CommandError as failure:
                if not self._was_connected or failure.code in _FINAL:
                    raise
                reason = failure.error
            if not self._is_lost:
                self._is_lost = True
                self._context.out.note(
                    f"Connection lost ({reason}); trying every {self._interval_s * 1000:g} ms..."
                )
            time.sleep(self._interval_s)

    def _one_connection(self) -> Iterator[object]:
        context = self._context
        with context.client() as client, agent_errors(context.agent, writes=False):
            for item in client.stream(self._request()):
                if self._is_lost:
                    context.out.note("Connected again")
                    self._is_lost = False
                self._was_connected = True
                yield item
