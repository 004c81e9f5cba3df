"""A key of the store."""

from __future__ import annotations

import msgspec


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A key as it stands. `revision` is the store's at its last put, `create_revision` at its
    first; `version` counts the puts since then, from 1.
    """

    key: str
    value: bytes
    revision: int
    create_revision: int
    version: int
