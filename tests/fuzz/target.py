"""What a fuzz target is: a parser of foreign bytes, valid inputs, and what it may raise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """`run(data)` gives the bytes to a parser and checks what comes out; it raises nothing but what
    is a finding. `seeds()` are valid inputs to begin with. `mend` makes the checksums of an input
    right, so that mutations reach what stands behind them.
    """

    name: str
    run: Callable[[bytes], None]
    seeds: Callable[[], Sequence[bytes]]
    mend: Callable[[bytes], bytes] | None = None
    max_bytes: int = 16384
