"""Reading batches back from the log, in any thread, while the writer goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator

from raft_agent.consensus import batch as batches
from raft_agent.consensus.batch import Batch, BatchError
from raft_agent.storage.errors import REBUILD, StorageError
from raft_agent.storage.files import read_exactly, remedy
from raft_agent.storage.format import SYNC_MARKER_SIZE, skip_marker
from raft_agent.storage.index import LogIndex, Place
from raft_agent.storage.scan import MARK_SPACING_BYTES

_MAX_CHUNK_BYTES = 4 << 20
_MAX_HEAD_BYTES = SYNC_MARKER_SIZE + batches.HEADER_SIZE


def read_batches(index: LogIndex, from_index: int, max_bytes: int) -> tuple[Batch, ...]:
    """Whole consecutive batches, the first one holding `from_index`: at least one, then as many as
    fit into `max_bytes`. Empty when `from_index` is not in the log (any more).

    Raises StorageError when a batch is damaged or a file can't be read.
    """
    while True:
        cuts = index.cuts
        try:
            found = _read(index, from_index, max_bytes)
        except StorageError:
            if index.cuts == cuts:
                raise
            continue
        if index.cuts == cuts:
            return found


def _read(index: LogIndex, from_index: int, max_bytes: int) -> tuple[Batch, ...]:
    found: list[Batch] = []
    total = 0
    place = index.find(from_index)
    while place is not None:
        for batch in _batches_at(place, from_index, max_bytes - total):
            total += len(batch.record)
            if found and total > max_bytes:
                return tuple(found)
            found.append(batch)
            if total >= max_bytes:
                return tuple(found)
        from_index = place.next_index
        place = index.find(from_index)
    return tuple(found)


def _batches_at(place: Place, from_index: int, budget_bytes: int) -> Iterator[Batch]:
    """The segment's batches from the one on that holds `from_index`."""
    chunk = min(max(budget_bytes, 0) + MARK_SPACING_BYTES, _MAX_CHUNK_BYTES)
    expected = place.first_index
    offset = place.offset
    try:
        fd = os.open(place.path, os.O_RDONLY)
        try:
            data, base = b"", offset
            while offset < place.end_offset:
                at = offset - base
                if at + _MAX_HEAD_BYTES > len(data):
                    data, base, at = read_exactly(fd, chunk, offset), offset, 0
                begin = skip_marker(data, at)
                header = batches.decode_header(data, begin)
                size = begin - at + header.size
                if header.first_index != expected:
                    raise BatchError(f"index {header.first_index} is where {expected} should be")
                if header.last_index >= from_index:
                    if at + size > len(data):
                        data = read_exactly(fd, max(chunk, size), offset)
                        base, begin = offset, begin - at
                    yield batches.decode(data, begin)
                offset += size
                expected = header.last_index + 1
        finally:
            os.close(fd)
    except BatchError as error:
        raise StorageError(f"damaged: {error}", place.path, offset, REBUILD) from None
    except OSError as error:
        what = f"can't be read: {error.strerror}"
        raise StorageError(what, place.path, offset, remedy(error, "Check the disk")) from error


def find_boundary(index: LogIndex, wanted: int) -> tuple[Place, int]:
    """The segment and the byte at which the batch stands that starts with entry `wanted`, or the
    marker in front of it: where the batch before ends.

    Raises ValueError when no batch starts there, StorageError when the way to it is damaged.
    """
    place = index.find(wanted)
    if place is None:
        raise ValueError(f"index {wanted} is not in the log")
    expected, offset = place.first_index, place.offset
    try:
        fd = os.open(place.path, os.O_RDONLY)
        try:
            while expected < wanted:
                data = os.pread(fd, _MAX_HEAD_BYTES, offset)
                begin = skip_marker(data, 0)
                header = batches.decode_header(data, begin)
                if header.first_index != expected:
                    raise BatchError(f"index {header.first_index} is where {expected} should be")
                offset += begin + header.size
                expected = header.last_index + 1
        finally:
            os.close(fd)
    except BatchError as error:
        raise StorageError(f"damaged: {error}", place.path, offset, REBUILD) from None
    if expected != wanted:
        raise ValueError(f"index {wanted} is inside a batch; logs are cut between batches")
    return place, offset
