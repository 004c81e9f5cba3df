"""Times as Kubernetes writes them: RFC 3339 in UTC, to the second. And what time it is there."""

from __future__ import annotations

import datetime
import email.utils
import time
from collections.abc import Callable

# The header has whole seconds, and takes a while to come here.
_SLACK = datetime.timedelta(seconds=2)


class ServerClock:
    """A server's clock: what it said last, and the time that has passed since. This machine's own
    one may be wrong, and jumps when somebody sets it; it counts until the server has spoken."""

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._read(datetime.datetime.now(datetime.UTC))

    def now(self) -> datetime.datetime:
        return self._said + datetime.timedelta(seconds=self._monotonic_s() - self._heard_at_s)

    def hear(self, date: str | None) -> None:
        """`date`: the header of an answer (RFC 9110, 6.6.1). What is none changes nothing."""
        try:
            said = email.utils.parsedate_to_datetime(date or "").replace(tzinfo=datetime.UTC)
        except ValueError:
            return
        if abs(said - self.now()) > _SLACK:
            self._read(said)

    def _read(self, said: datetime.datetime) -> None:
        self._said, self._heard_at_s = said, self._monotonic_s()


def text_of(time: datetime.datetime) -> str:
    return time.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def time_of(text: str | None) -> datetime.datetime | None:
    """None for what is no time."""
    try:
        found = datetime.datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=datetime.UTC)


def utc_text(seconds: float) -> str:
    """Of a time of the system, with milliseconds, as log lines have it."""
    time = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
