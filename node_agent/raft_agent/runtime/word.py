"""The word that this member gives its leaders: to vote for nobody for a shortest election timeout
after each heartbeat. Reads by the lease count on it, so it holds over a restart with a shorter one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from raft_agent.storage.store import Store

log = logging.getLogger("raft.runtime")


class Word:
    """`word_us`: what this start promises; `Store.recovered.word_us` is what earlier ones did."""

    def __init__(self, store: Store, word_us: int) -> None:
        self._store = store
        self._word_us = word_us
        self._timer: asyncio.TimerHandle | None = None

    def give(self, tell: Callable[..., None]) -> None:
        """Before the first heartbeat is answered. Blocks for a moment when it is a longer one than
        before. A shorter one is noted when the longer one has been kept. Raises OSError."""
        earlier_us = self._store.recovered.word_us
        if self._word_us > earlier_us:
            self._store.save_word(self._word_us)
        elif self._word_us < earlier_us:
            tell("word_kept", ms=earlier_us // 1000)
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(earlier_us / 1e6, self._shorten, loop)

    def _shorten(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.run_in_executor(None, self._save)

    def _save(self) -> None:
        try:
            self._store.save_word(self._word_us)
        except OSError as error:  # the longer one is safe as well
            log.warning("the shorter word could not be noted: %s", error)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
