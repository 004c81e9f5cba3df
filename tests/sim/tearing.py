"""What a power failure leaves of a write that no fsync had confirmed."""

from __future__ import annotations

import random
from collections.abc import Sequence

from raft_agent.consensus.batch import Batch
from raft_agent.storage.judge import SECTOR_BYTES


def with_holes(data: bytes, start: int, rng: random.Random) -> bytes:
    """`data`, which was to stand at byte `start` of a file, with any sectors missing: those of one
    unfinished write reach the medium in any order."""
    lost = rng.choice((0, 0.1, 0.5))
    holed = bytearray(data)
    for sector in range(-(start % SECTOR_BYTES), len(data), SECTOR_BYTES):
        if rng.random() < lost:
            begin, end = max(sector, 0), min(sector + SECTOR_BYTES, len(data))
            holed[begin:end] = bytes(end - begin)
    return bytes(holed)


def spare_ambiguous(data: bytes, left: bytes, batches: Sequence[Batch]) -> bytes:
    """`left`, what there is of `data`, which ends with `batches`. A batch that misses a single bit
    is taken for damage, and the tears of one power failure must not do that to a majority: such a
    batch is there in full.
    """
    padded = left.ljust(len(data), b"\0")
    end = len(data) - sum(len(batch.record) for batch in batches)
    for batch in batches:
        begin, end = end, end + len(batch.record)
        missing = int.from_bytes(batch.record) ^ int.from_bytes(padded[begin:end])
        if missing.bit_count() == 1:
            return padded[:begin] + batch.record + padded[end:]
    return left
