"""Times as Kubernetes writes them: RFC 3339 in UTC, to the second."""

from __future__ import annotations

import datetime


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
