"""State that a snapshot shares with the machine, which holds it in pieces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

_T = TypeVar("_T")


def letting_go(pieces: list[Iterable[_T]]) -> Iterator[_T]:
    """The items of all pieces, in order; `pieces` is used up.

    Each piece is let go of when its items are through. The machine may have dropped them all by
    then, and to free them together, at the end, would be a pause.
    """
    pieces.reverse()
    while pieces:
        yield from pieces.pop()
