"""Numbers that the state machine gives out, and a later generation must not give out again.

Revisions, sessions and leases are known to clients. After a recovery or a restore entries are gone
that may have given out some, so all those that follow begin behind a floor, which comes with the
configuration (`consensus.types.Generation`).
"""

from __future__ import annotations

import msgspec

# More than can have been given out by what is lost.
ROOM = 1 << 30


class _Generation(msgspec.Struct, frozen=True):
    floor: int = 0


class _Configuration(msgspec.Struct, frozen=True):
    generation: _Generation = _Generation()


_DECODER = msgspec.msgpack.Decoder(_Configuration)


def floor_in(payload: bytes | memoryview) -> int:
    """The floor that the configuration in a batch says; 0 when it says none."""
    try:
        return _DECODER.decode(payload).generation.floor
    except (msgspec.DecodeError, RecursionError):
        return 0


def next_floor(revision: int, floor: int, applied_index: int, last_index: int) -> int:
    """A floor behind all that was given out up to the entry `last_index` and, with room, by others
    that are lost; `revision` and `floor` are as of the entry `applied_index`."""
    unapplied = last_index - applied_index
    return max(revision + unapplied, floor + last_index) + ROOM
