"""Connections that were accepted and have not said yet who they are: how many there may be."""

from __future__ import annotations

import collections

MAX_STRANGERS = 1024
# So that no host can take all places.
MAX_OF_A_HOST = 512


class Strangers:
    """`count`: all of them."""

    def __init__(self) -> None:
        self.count = 0
        self._by_host: collections.Counter[str] = collections.Counter()

    def come(self, host: str) -> str:
        """One more, who has to `leave` in any case; why that is too many, "" when it is not."""
        self.count += 1
        self._by_host[host] += 1
        if self._by_host[host] > MAX_OF_A_HOST:
            return f"{MAX_OF_A_HOST} others of {host} have not finished their handshake"
        if self.count > MAX_STRANGERS:
            return f"{MAX_STRANGERS} others have not finished their handshake"
        return ""

    def leave(self, host: str) -> None:
        """One has said who it is, or is gone."""
        self.count -= 1
        self._by_host[host] -= 1
        if not self._by_host[host]:
            del self._by_host[host]
