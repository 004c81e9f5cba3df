"""Refusals: counted all, logged at a rate that a hostile peer can't raise."""

from __future__ import annotations

import collections
import logging
from collections.abc import Callable

logger = logging.getLogger("raft.transport")

LOG_INTERVAL_S = 30.0
MAX_REMEMBERED = 256


class RejectLog:
    """Counts refused connections and frames by reason and logs the first of each kind and address.

    The same reason at the same host (IP address, or the address that was dialled) is logged again
    after LOG_INTERVAL_S, with how many were left out; at most MAX_REMEMBERED lines per interval.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: monotonic, in seconds."""
        self.counts: collections.Counter[str] = collections.Counter()
        self._clock = clock
        self._silent_until: dict[tuple[str, str], float] = {}
        self._left_out: collections.Counter[tuple[str, str]] = collections.Counter()

    def record(self, reason: str, host: str, text: str) -> None:
        """Count one refusal; `text` is the whole sentence for people."""
        self.counts[reason] += 1
        key = (host, reason)
        now = self._clock()
        if now < self._silent_until.get(key, 0.0):
            self._left_out[key] += 1
            return
        if len(self._silent_until) >= MAX_REMEMBERED and not self._forget_old(now):
            return
        self._silent_until[key] = now + LOG_INTERVAL_S
        left_out = self._left_out.pop(key, 0)
        logger.warning("%s%s", text, f" (and {left_out} more like it)" if left_out else "")

    def _forget_old(self, now: float) -> bool:
        """Make room; False when all that is remembered is younger than the interval."""
        old = [key for key, until in self._silent_until.items() if until <= now]
        for key in old:
            del self._silent_until[key]
            self._left_out.pop(key, None)
        return bool(old)
