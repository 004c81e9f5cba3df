"""aiohttp's complaints about what strangers send: one line each, and not as many as they like."""

from __future__ import annotations

import logging
from collections.abc import Callable

from aiohttp.http_exceptions import HttpProcessingError

INTERVAL_S = 10.0


class _OneLine(logging.Filter):
    """aiohttp logs a traceback for every request that it can't parse."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self._silent_until = 0.0
        self._left_out = 0

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if record.levelno < logging.ERROR or not isinstance(error, HttpProcessingError):
            return True
        now = self._clock()
        if now < self._silent_until:
            self._left_out += 1
            return False
        self._silent_until = now + INTERVAL_S
        more = f" (and {self._left_out} more like it)" if self._left_out else ""
        self._left_out = 0
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.exc_info = record.exc_text = None
        what = " ".join(str(error.message).split())[:200]
        record.msg, record.args = f"{record.getMessage()}: refused: {what}{more}", ()
        return True


def complaints(to: logging.Logger, clock: Callable[[], float]) -> logging.Logger:
    """A logger for aiohttp, whose lines go on to `to`. `clock`: in seconds."""
    logger = logging.Logger(to.name)
    logger.parent = to
    logger.addFilter(_OneLine(clock))
    return logger
