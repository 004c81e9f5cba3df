"""The snapshot files of one server under test: whole state machines, as lists of batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import google_crc32c
import msgspec

from raft_agent.consensus.batch import Batch, decode
from raft_agent.consensus.types import Configuration, InstallSnapshot, SnapshotMeta, WriteSnapshot

KEPT = 2


class _State(msgspec.Struct):
    configuration_index: int
    configuration: Configuration
    records: list[bytes]


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_State)


class SnapshotFile(NamedTuple):
    meta: SnapshotMeta
    data: bytes

    @property
    def applied(self) -> list[Batch]:
        """What the state machine had got."""
        return [decode(record) for record in _DECODER.decode(self.data).records]


def snapshot_of(
    applied: Sequence[Batch], configuration_index: int, configuration: Configuration
) -> SnapshotFile:
    """A snapshot of the state after all of these batches."""
    records = [batch.record for batch in applied]
    data = _ENCODER.encode(_State(configuration_index, configuration, records))
    return _file_of(applied[-1].last_index, applied[-1].term, data)


def _file_of(index: int, term: int, data: bytes) -> SnapshotFile:
    state = _DECODER.decode(data)
    checksum = google_crc32c.value(data)
    meta = SnapshotMeta(
        index, term, len(data), checksum, state.configuration_index, state.configuration
    )
    return SnapshotFile(meta, data)


class SnapshotFiles:
    """The newest ones, oldest first, and the one that comes in."""

    def __init__(self) -> None:
        self.kept: list[SnapshotFile] = []
        self.incoming = b""

    @property
    def newest(self) -> SnapshotFile | None:
        return self.kept[-1] if self.kept else None

    def keep(self, file: SnapshotFile) -> None:
        others = [kept for kept in self.kept if kept.meta.index != file.meta.index]
        self.kept = [*others, file][-KEPT:]

    def read(self, index: int, offset: int, max_bytes: int) -> bytes:
        """Empty when it is gone."""
        for file in self.kept:
            if file.meta.index == index:
                return file.data[offset : offset + max_bytes]
        return b""

    def write(self, piece: WriteSnapshot) -> None:
        if piece.offset == 0:
            self.incoming = b""
        assert len(self.incoming) == piece.offset, "pieces are written one behind the other"
        self.incoming += piece.data

    def complete(self, install: InstallSnapshot) -> SnapshotFile | None:
        """What came in; None when it is not what was sent."""
        data, self.incoming = self.incoming, b""
        if (len(data), google_crc32c.value(data)) != (install.size_bytes, install.checksum):
            return None
        return _file_of(install.index, install.term, data)
