"""Connections that were accepted and have not said yet who they are: how many there may be.

Who is let in has said so in some milliseconds. So when there are too many it is the oldest who has
to go: whoever takes all places and says nothing keeps no member out that comes after him.
"""

from __future__ import annotations

from typing import Generic, TypeVar

MAX_STRANGERS = 1024
# So that no host can take all places.
MAX_OF_A_HOST = 512

_Connection = TypeVar("_Connection")


class Strangers(Generic[_Connection]):
    """`count`: all of them."""

    def __init__(self) -> None:
        self.count = 0
        # The oldest first. Hosts, too, are in the order in which the first of each has come.
        self._by_host: dict[str, dict[_Connection, None]] = {}

    def come(self, connection: _Connection, host: str) -> tuple[_Connection, str] | None:
        """One more, who has to `leave` in any case. Who has to go for that, which is the oldest of
        the host that has most, and why; None when there is room. It counts no more.
        """
        self._by_host.setdefault(host, {})[connection] = None
        self.count += 1
        if len(self._by_host[host]) > MAX_OF_A_HOST:
            return self._oldest(host), f"{MAX_OF_A_HOST} newer ones of {host} {_WHAT}"
        if self.count > MAX_STRANGERS:
            largest = max(self._by_host, key=lambda host: len(self._by_host[host]))
            return self._oldest(largest), f"{MAX_STRANGERS} others {_WHAT}"
        return None

    def leave(self, connection: _Connection, host: str) -> None:
        """One has said who it is, or is gone."""
        of_host = self._by_host.get(host, {})
        if connection in of_host:
            del of_host[connection]
            self.count -= 1
            if not of_host:
                del self._by_host[host]

    def _oldest(self, host: str) -> _Connection:
        oldest = next(iter(self._by_host[host]))
        self.leave(oldest, host)
        return oldest


_WHAT = "have not finished their handshake, and this one has had the most time for it"
