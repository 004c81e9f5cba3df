"""The newest items of a growing sequence, in pieces.

Pieces only grow and are dropped as a whole. So nothing is ever moved, dropping many items at once
costs little each time, and who wants to keep the items of this moment takes the list of pieces.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Generic, TypeVar

from raft_agent.machine.watches import KeyChange, Message

ItemT = TypeVar("ItemT")

PIECE_ITEMS = 1024
# How many dropped pieces are freed at one append: a smaller `keep` frees millions of items.
_FREED_AT_ONCE = 2


class Recent(Generic[ItemT]):
    """At most `keep` items, each with a number (`number_of`) greater than the one before.

    `dropped_before`: the number up to which items were dropped before the first one was added.
    """

    def __init__(
        self, number_of: Callable[[ItemT], int], keep: int, *, dropped_before: int = 0
    ) -> None:
        self._number_of = number_of
        self._keep = keep
        self._freed = dropped_before
        self._last: list[ItemT] = []
        self._pieces = [self._last]
        # Dropped items that are still in the first pieces, and the others.
        self._skipped = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def dropped(self) -> int:
        """The number of the newest item that was dropped, 0 when none was."""
        if not self._skipped:
            return self._freed
        return self._number_of(self._at(-1))

    def append(self, item: ItemT) -> None:
        """`item` has a greater number than the last one."""
        last = self._last
        if len(last) >= PIECE_ITEMS:
            last = self._last = []
            self._pieces.append(last)
        last.append(item)
        self._count += 1
        if self._count > self._keep:
            self.drop(self._count - self._keep)

    def set_keep(self, keep: int) -> None:
        """Keep no more than `keep` items from now on."""
        self._keep = keep
        if self._count > keep:
            self.drop(self._count - keep)

    def drop(self, count: int) -> None:
        """Drop the `count` oldest items; there must be so many."""
        self._count -= count
        self._skipped += count
        if self._skipped >= PIECE_ITEMS:
            self._free()

    def _free(self) -> None:
        # The last piece stays, because items are still appended to it.
        count = min(self._skipped // PIECE_ITEMS, _FREED_AT_ONCE, len(self._pieces) - 1)
        if count:
            self._freed = self._number_of(self._pieces[count - 1][-1])
            del self._pieces[:count]
            self._skipped -= count * PIECE_ITEMS

    def _at(self, place: int) -> ItemT:
        """The item at `place` behind the dropped ones."""
        piece, offset = divmod(self._skipped + place, PIECE_ITEMS)
        return self._pieces[piece][offset]

    def oldest(self) -> ItemT:
        """The oldest item; there must be one."""
        return self._at(0)

    def after(self, number: int, limit: int = 1 << 62) -> list[ItemT]:
        """Items with a number greater than `number`, oldest first, at most `limit`."""
        # Numbers rise over pieces as within them, so the first piece that ends beyond has it.
        pieces = self._pieces
        number_of = self._number_of
        place = bisect_right(pieces, number, hi=len(pieces) - 1, key=lambda p: number_of(p[-1]))
        start = place * PIECE_ITEMS + bisect_right(pieces[place], number, key=number_of)
        return list(islice(self._from(max(start, self._skipped)), limit))

    def newest(self, limit: int) -> list[ItemT]:
        """The newest `limit` items, newest first."""
        count = min(limit, self._count)
        return list(self._from(self._skipped + self._count - count))[::-1]

    def _from(self, position: int) -> Iterator[ItemT]:
        piece, offset = divmod(position, PIECE_ITEMS)
        first = self._pieces[piece][offset:] if piece < len(self._pieces) else []
        return chain(first, chain.from_iterable(self._pieces[piece + 1 :]))

    def frozen(self) -> Iterator[ItemT]:
        """The items of this moment, oldest first, whatever is appended or dropped meanwhile."""
        return islice(_walk(self._pieces.copy(), self._skipped), self._count)


def _walk(pieces: Iterable[list[ItemT]], skipped: int) -> Iterator[ItemT]:
    for piece in pieces:
        yield from piece[skipped:]
        skipped = max(skipped - len(piece), 0)


class RecentMessages(Recent[Message]):
    """Messages by their log index."""

    def __init__(self, keep: int, *, dropped_before: int = 0) -> None:
        super().__init__(lambda message: message.index, keep, dropped_before=dropped_before)


# Values can be large: so much of them is kept of the past, whatever the number of changes.
HISTORY_BYTES = 64 << 20
_DROPPED_AT_ONCE = 64


class History(Recent[KeyChange]):
    """Changes of keys by their revision, at most HISTORY_BYTES of keys and values.

    A smaller `keep` takes effect little by little with the next changes: each change that is
    dropped has to be looked at, and nobody counts on their being gone.
    """

    def __init__(self, keep: int, *, dropped_before: int = 0) -> None:
        super().__init__(lambda change: change.revision, keep, dropped_before=dropped_before)
        self._bytes = 0

    def append(self, item: KeyChange) -> None:
        value = item.value
        self._bytes += len(item.key) if value is None else len(item.key) + len(value)
        super().append(item)
        while self._bytes > HISTORY_BYTES:
            self.drop(1)

    def set_keep(self, keep: int) -> None:
        self._keep = keep

    def drop(self, count: int) -> None:
        count = min(count, _DROPPED_AT_ONCE)
        for place in range(count):
            change = self._at(place)
            self._bytes -= len(change.key) + len(change.value or b"")
        super().drop(count)
