"""Keys in order, for listing by prefix: a list of sorted buckets.

Adding a key moves at most one bucket's pointers, so the event loop never waits for a sort of all
keys, whatever comes first, a million writes or a listing.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator

BUCKET_KEYS = 512


class KeyIndex:
    """A sorted set of strings. Code point order, which is also the byte order of UTF-8."""

    __slots__ = ("_buckets", "_firsts")

    def __init__(self, keys: Iterable[str] = ()) -> None:
        ordered = sorted(keys)
        self._buckets = [
            ordered[start : start + BUCKET_KEYS] for start in range(0, len(ordered), BUCKET_KEYS)
        ] or [[]]
        # The first bucket takes whatever is smaller than all others.
        self._firsts = [""] + [bucket[0] for bucket in self._buckets[1:]]

    def add(self, key: str) -> None:
        """`key` must not be in the set."""
        place = bisect_right(self._firsts, key) - 1
        bucket = self._buckets[place]
        insort(bucket, key)
        if len(bucket) > 2 * BUCKET_KEYS:
            upper = bucket[BUCKET_KEYS:]
            del bucket[BUCKET_KEYS:]
            self._buckets.insert(place + 1, upper)
            self._firsts.insert(place + 1, upper[0])

    def append(self, key: str) -> None:
        """`key` must be greater than all that are in the set."""
        bucket = self._buckets[-1]
        if len(bucket) < BUCKET_KEYS:
            bucket.append(key)
        else:
            self._buckets.append([key])
            self._firsts.append(key)

    def remove(self, key: str) -> None:
        """`key` must be in the set."""
        place = bisect_right(self._firsts, key) - 1
        bucket = self._buckets[place]
        del bucket[bisect_left(bucket, key)]
        if not bucket and place:
            del self._buckets[place]
            del self._firsts[place]

    def after(self, key: str) -> Iterator[str]:
        """The keys greater than `key`, in order. Valid until the next change."""
        place = bisect_right(self._firsts, key) - 1
        return self._walk(place, bisect_right(self._buckets[place], key))

    def at_or_after(self, key: str) -> Iterator[str]:
        """The keys not smaller than `key`, in order. Valid until the next change."""
        place = bisect_right(self._firsts, key) - 1
        return self._walk(place, bisect_left(self._buckets[place], key))

    def _walk(self, place: int, start: int) -> Iterator[str]:
        yield from self._buckets[place][start:]
        for number in range(place + 1, len(self._buckets)):
            yield from self._buckets[number]

    def buckets(self) -> Iterator[list[str]]:
        """All keys in order, some hundreds at a time. Valid until the next change."""
        return iter(self._buckets)

    def dismantle(self) -> None:
        """Free the set piece by piece; it must not be used any more."""
        while self._buckets:
            self._buckets.pop()
        while self._firsts:
            self._firsts.pop()
