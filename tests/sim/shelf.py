"""The snapshots on one node's disk: the two newest, in the agent's format, and one that comes in.

The bytes are real; what they are when a process starts is judged by the agent's own reader.
"""

from __future__ import annotations

import io
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import google_crc32c

from raft_agent.consensus.types import (
    Configuration,
    InstallSnapshot,
    SnapshotMeta,
    WriteSnapshot,
)
from raft_agent.storage.errors import StorageError
from raft_agent.storage.snapshot_format import (
    SnapshotDamageError,
    SnapshotHeader,
    SnapshotReader,
    encode_block_prefix,
    encode_end,
    encode_header,
)
from raft_agent.storage.snapshots import KEPT


@dataclass(frozen=True, slots=True)
class Stored:
    """One file; `meta` is what was to be in it."""

    meta: SnapshotMeta
    data: bytes

    def blocks(self) -> Iterator[bytes]:
        """Raises SnapshotDamageError."""
        return SnapshotReader(io.BytesIO(self.data).read).blocks()

    @property
    def is_intact(self) -> bool:
        return google_crc32c.value(self.data) == self.meta.checksum


def stored_of(
    index: int, term: int, in_force: tuple[int, Configuration], blocks: Iterable[bytes]
) -> Stored:
    """The file of a snapshot whose blocks are these."""
    header = SnapshotHeader(index, term, *in_force)
    parts = [encode_header(header)]
    number = 0
    for number, block in enumerate(blocks, start=1):
        parts += (encode_block_prefix(number - 1, block), block)
    parts.append(encode_end(number))
    data = b"".join(parts)
    return Stored(header.meta(len(data), google_crc32c.value(data)), data)


class Shelf:
    """`kept`: the newest first."""

    def __init__(self, rng: random.Random, seen: Counter[str]) -> None:
        self._rng = rng
        self._seen = seen
        self.kept: list[Stored] = []
        self._incoming = bytearray()
        self._incoming_key = (0, 0, 0, 0)

    @property
    def newest(self) -> SnapshotMeta | None:
        return self.kept[0].meta if self.kept else None

    @property
    def newest_index(self) -> int:
        return self.kept[0].meta.index if self.kept else 0

    @property
    def older_index(self) -> int:
        """Up to where the log is needed no more."""
        return self.kept[1].meta.index if len(self.kept) > 1 else 0

    @property
    def largest_bytes(self) -> int:
        return max((len(stored.data) for stored in self.kept), default=0)

    def find(self, index: int) -> Stored | None:
        return next((stored for stored in self.kept if stored.meta.index == index), None)

    def publish(self, stored: Stored) -> None:
        """From now on it is there, whatever happens."""
        if self.find(stored.meta.index) is None:
            self.kept.append(stored)
            self.kept.sort(key=lambda kept: kept.meta.index, reverse=True)
            del self.kept[KEPT:]

    # --- one that comes in

    def write(self, effect: WriteSnapshot) -> int:
        """The offset up to which the file is there then; a piece that does not follow changes
        nothing."""
        key = (effect.index, effect.term, effect.size_bytes, effect.checksum)
        if effect.offset == 0:
            self._incoming, self._incoming_key = bytearray(), key
        if key != self._incoming_key:
            return 0
        if effect.offset == len(self._incoming):
            self._incoming += effect.data
        return len(self._incoming)

    def take_incoming(self, effect: InstallSnapshot) -> Stored | None:
        """The file that has come in, if it is what it was said to be."""
        data, self._incoming = bytes(self._incoming), bytearray()
        key = (effect.index, effect.term, len(data), google_crc32c.value(data))
        if key != (effect.index, effect.term, effect.size_bytes, effect.checksum):
            return None
        try:
            reader = SnapshotReader(io.BytesIO(data).read)
        except SnapshotDamageError:
            return None
        return Stored(reader.header.meta(len(data), key[3]), data)

    # --- crashes and damage

    def crash(self) -> None:
        """What has come in and is not complete is of no use to the next process."""
        self._incoming, self._incoming_key = bytearray(), (0, 0, 0, 0)

    def damage_newest(self) -> None:
        newest = self.kept[0]
        data = bytearray(newest.data)
        bit = self._rng.randrange(len(data) * 8)
        data[bit // 8] ^= 1 << bit % 8
        self.kept[0] = Stored(newest.meta, bytes(data))

    def examine(self) -> tuple[list[SnapshotMeta], list[StorageError]]:
        """What a start finds: the intact ones, the newest first, and what is wrong with others.
        Those are given up."""
        intact: list[SnapshotMeta] = []
        damaged: list[StorageError] = []
        for stored in self.kept.copy():
            reader = None
            try:
                reader = SnapshotReader(io.BytesIO(stored.data).read)
                for _ in reader.blocks():
                    pass
            except SnapshotDamageError as error:
                self._seen["damaged_snapshot_found"] += 1
                damaged.append(StorageError(f"damaged: {error}", "snapshot", error.offset))
                self.kept.remove(stored)
            else:
                intact.append(reader.meta())
        return intact, damaged
