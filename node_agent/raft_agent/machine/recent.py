"""The newest messages and the newest changes of keys, in pieces.

Pieces only grow and are dropped as a whole. So nothing is ever moved, dropping many items at once
costs little each time, and who wants to keep the items of this moment takes the list of pieces.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import chain, islice, takewhile

from raft_agent.machine.pieces import letting_go
from raft_agent.machine.watches import KeyChange, Message

PIECE_ITEMS = 1024
# How many pieces are freed at once: a smaller `keep` frees millions of items.
_FREED_AT_ONCE = 2


class MessageLog:
    """The newest `keep` messages by their rising log index.

    `dropped_before`: the index up to which messages were dropped before the first one was added.
    """

    def __init__(self, keep: int, *, dropped_before: int = 0) -> None:
        self._keep = keep
        self._freed = dropped_before
        self._last: list[Message] = []
        self._pieces = [self._last]
        # Dropped messages that are still in the first pieces, and the others.
        self._skipped = 0
        self._count = 0

    @property
    def dropped(self) -> int:
        """The index of the newest message that was dropped, 0 when none was."""
        if not self._skipped:
            return self._freed
        piece, offset = divmod(self._skipped - 1, PIECE_ITEMS)
        return self._pieces[piece][offset].index

    def append(self, message: Message) -> None:
        """`message` has a greater index than the last one."""
        last = self._last
        if len(last) >= PIECE_ITEMS:
            last = self._last = []
            self._pieces.append(last)
        last.append(message)
        self._count += 1
        if self._count > self._keep:
            self._drop()

    def set_keep(self, keep: int) -> None:
        """Keep no more than `keep` messages from now on."""
        self._keep = keep
        if self._count > keep:
            self._drop()

    def _drop(self) -> None:
        self._skipped += self._count - self._keep
        self._count = self._keep
        if self._skipped >= PIECE_ITEMS:
            # The last piece stays, because messages are still appended to it.
            count = min(self._skipped // PIECE_ITEMS, _FREED_AT_ONCE, len(self._pieces) - 1)
            if count:
                self._freed = self._pieces[count - 1][-1].index
                del self._pieces[:count]
                self._skipped -= count * PIECE_ITEMS

    def after(self, index: int, limit: int) -> list[Message]:
        """Messages with an index greater than `index`, oldest first, at most `limit`."""
        pieces = self._pieces
        # All pieces but the last one are full, and the first that ends beyond `index` has the next.
        place = bisect_right(pieces, index, hi=len(pieces) - 1, key=lambda piece: piece[-1].index)
        start = bisect_right(pieces[place], index, key=lambda message: message.index)
        position = max(place * PIECE_ITEMS + start, self._skipped)
        return list(islice(self._from(position), limit))

    def newest(self, limit: int) -> list[Message]:
        """The newest `limit` messages, newest first."""
        count = min(limit, self._count)
        return list(self._from(self._skipped + self._count - count))[::-1]

    def _from(self, position: int) -> Iterator[Message]:
        piece, offset = divmod(position, PIECE_ITEMS)
        first = self._pieces[piece][offset:] if piece < len(self._pieces) else []
        return chain(first, chain.from_iterable(self._pieces[piece + 1 :]))

    def frozen(self) -> Iterator[Message]:
        """The messages of this moment, oldest first, whatever is appended or dropped meanwhile."""
        return islice(letting_go([*self._pieces]), self._skipped, self._end())

    def _end(self) -> int:
        return self._skipped + self._count

    def dismantle(self) -> None:
        """Free the messages piece by piece; they must not be used any more."""
        self._last = []
        while self._pieces:
            self._pieces.pop()


def _size_of(change: KeyChange) -> int:
    value = change.value
    return len(change.key) if value is None else len(change.key) + len(value)


# Values can be large: so much of them is kept of the past, whatever the number of changes.
HISTORY_BYTES = 64 << 20
_PIECE_BYTES = 1 << 20


class History:
    """The newest changes of keys: at least `keep` and some more, because pieces are dropped as a
    whole; but no more than HISTORY_BYTES of keys and values, and the piece that grows.

    `compacted_revision`: changes up to it are gone. A smaller `keep` takes effect little by little.
    `keep` None: nothing at all is dropped until `set_keep`.
    """

    def __init__(self, keep: int | None, *, compacted_revision: int = 0) -> None:
        self.compacted_revision = compacted_revision
        self._keep = keep
        self._last: list[KeyChange] = []
        self._last_bytes = 0
        self._pieces = [self._last]
        # Of the pieces before the last one.
        self._sizes: list[int] = []
        self._count = 0
        self._bytes = 0

    def append(self, change: KeyChange) -> None:
        """`change` has the next revision, or the last one's."""
        last = self._last
        last.append(change)
        self._last_bytes += _size_of(change)
        if len(last) >= PIECE_ITEMS or self._last_bytes >= _PIECE_BYTES:
            self._begin_piece()

    def extend(self, changes: list[KeyChange]) -> None:
        """The same as `append` for each, at half the cost."""
        start = 0
        while start < len(changes):
            stop = start + PIECE_ITEMS - len(self._last)
            fitting = changes[start:stop]
            # As `_size_of`, without a call for each.
            size = self._last_bytes + sum(
                [len(change.key) + len(change.value or b"") for change in fitting]
            )
            if size < _PIECE_BYTES:
                self._last += fitting
                self._last_bytes = size
                if len(self._last) >= PIECE_ITEMS:
                    self._begin_piece()
            else:
                for change in fitting:
                    self.append(change)
            start = stop

    def set_keep(self, keep: int) -> None:
        self._keep = keep

    def _begin_piece(self) -> None:
        self._sizes.append(self._last_bytes)
        self._bytes += self._last_bytes
        self._count += len(self._last)
        self._last, self._last_bytes = [], 0
        self._pieces.append(self._last)
        if self._keep is None:
            return
        for _ in range(_FREED_AT_ONCE):
            oldest = self._pieces[0]
            if oldest is self._last or (
                self._count - len(oldest) < self._keep and self._bytes <= HISTORY_BYTES
            ):
                return
            self.compacted_revision = oldest[-1].revision
            self._count -= len(oldest)
            self._bytes -= self._sizes.pop(0)
            del self._pieces[0]

    def since(self, revision: int, limit: int) -> list[KeyChange]:
        """Changes with this revision or a greater one, oldest first, at most `limit` and those that
        have the last one's revision, too."""
        pieces = self._pieces
        place = bisect_left(
            pieces, revision, hi=len(pieces) - 1, key=lambda piece: piece[-1].revision
        )
        start = bisect_left(pieces[place], revision, key=lambda change: change.revision)
        rest = chain(pieces[place][start:], chain.from_iterable(pieces[place + 1 :]))
        changes = list(islice(rest, limit))
        if len(changes) == limit and limit:
            last = changes[-1].revision
            changes += takewhile(lambda change: change.revision == last, rest)
        return changes

    def frozen(self) -> Iterator[KeyChange]:
        """The changes of this moment, oldest first, whatever is appended or dropped meanwhile."""
        count = self._count + len(self._last)
        return islice(letting_go([*self._pieces]), count)

    def dismantle(self) -> None:
        """Free the changes piece by piece; they must not be used any more."""
        self._last = []
        while self._pieces:
            self._pieces.pop()
