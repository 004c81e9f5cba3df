"""Whether the program sees the packets that this node's sockets get.

Something in front of it that takes packets (a TCX program, another filter), or a route over another
interface, hides them without a word. What TCP received and what the program counted tell.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import msgspec

# One look alone can be unlucky: counters are read one after the other while packets come.
_LOOKS = 2
# Below that too little came to tell anything.
_MIN_BYTES = 512


class Seen(msgspec.Struct, frozen=True):
    """One connection: what its socket has received, and the program's count of the same, since it
    began; 0 when the program does not know the connection.
    """

    connection: Hashable
    peer: int
    socket_bytes: int
    kernel_bytes: int


class _Mark(msgspec.Struct):
    socket_bytes: int
    kernel_bytes: int
    hidden_looks: int = 0


class SelfCheck:
    def __init__(self) -> None:
        self._marks: dict[Hashable, _Mark] = {}

    def look(self, now: Iterable[Seen]) -> set[int]:
        """The peers of whom connections are hidden from the program. Call it every second or so."""
        marks: dict[Hashable, _Mark] = {}
        hidden = set()
        for seen in now:
            mark = self._marks.get(seen.connection)
            if mark is None or seen.socket_bytes < mark.socket_bytes:
                mark = _Mark(seen.socket_bytes, seen.kernel_bytes)
            marks[seen.connection] = mark
            came = seen.socket_bytes - mark.socket_bytes
            if came >= _MIN_BYTES:
                counted = seen.kernel_bytes - mark.kernel_bytes
                # Where the entry of a connection was pushed out of the map, counting began anew.
                is_hidden = 0 <= counted < came // 2
                mark.hidden_looks = mark.hidden_looks + 1 if is_hidden else 0
                mark.socket_bytes, mark.kernel_bytes = seen.socket_bytes, seen.kernel_bytes
            if mark.hidden_looks >= _LOOKS:
                hidden.add(seen.peer)
        self._marks = marks
        return hidden

    def forget(self) -> None:
        """Begin anew: the program was attached somewhere else."""
        self._marks = {}
