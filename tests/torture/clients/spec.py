"""What the process with the clients is told."""

from __future__ import annotations

import msgspec


class Spec(msgspec.Struct):
    """Where the agents are, what the clients show them, and how long they pause between requests
    (on average, in seconds)."""

    addresses: list[str]
    ca: str
    cert: str
    key: str
    seed: int
    pause_s: float
