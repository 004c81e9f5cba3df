"""The loaded program as the kernel part uses it."""

from __future__ import annotations

from collections.abc import Callable

from raft_agent.config import Config
from raft_agent.kernel.part import Sight, Unavailable


def loader(config: Config, port: int) -> Callable[[], Sight]:
    """What loads the program for an agent that listens on `port`."""

    def load() -> Sight:
        raise Unavailable("this version has no program to load")

    return load
