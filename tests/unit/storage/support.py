"""Logs and snapshots to test with, and a store driven from the test's own thread."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Queue

import google_crc32c
import msgspec
import pytest

from raft_agent.consensus.batch import Batch, BatchKind, encode
from raft_agent.consensus.types import (
    AppendLog,
    Configuration,
    InstallSnapshot,
    Member,
    SaveVote,
    SnapshotMeta,
    Vote,
    WriteSnapshot,
)
from raft_agent.storage.format import (
    SEGMENT_HEADER_SIZE,
    encode_segment_header,
    group_buffers,
    segment_name,
)
from raft_agent.storage.plan import RecoveryPlan, plan_recovery
from raft_agent.storage.snapshot_format import (
    SnapshotHeader,
    encode_block_prefix,
    encode_end,
    encode_header,
)
from raft_agent.storage.snapshots import SnapshotStore
from raft_agent.storage.store import StorageFailure, Store

CLUSTER = "a-cluster"
UNUSED = bytes(2048)
TIMEOUT_S = 60


def make_batch(first_index: int, term: int = 1, count: int = 1, payload: bytes = b"x") -> Batch:
    return encode(BatchKind.COMMANDS, first_index, term, count, payload)


def configuration(cluster_id: str = CLUSTER) -> Configuration:
    return Configuration(cluster_id, (Member(1, "node-01", "127.0.0.1:5555"),), (1,))


def configuration_batch(first_index: int, term: int = 1) -> Batch:
    payload = msgspec.msgpack.encode(configuration())
    return encode(BatchKind.CONFIGURATION, first_index, term, 1, payload)


def make_log(sizes: Sequence[int], *, first_index: int = 1, term: int = 1) -> list[Batch]:
    """One batch for each payload size, of 1 to 3 entries; the term rises now and then."""
    rng = random.Random(f"{sizes}{first_index}")
    log: list[Batch] = []
    for size in sizes:
        count = rng.randint(1, 3)
        term += rng.random() < 0.3
        log.append(make_batch(first_index, term, count, rng.randbytes(size)))
        first_index += count
    return log


def records(log: Sequence[Batch]) -> bytes:
    return b"".join(batch.record for batch in log)


def written(groups: Sequence[Sequence[Batch]], offset: int = SEGMENT_HEADER_SIZE) -> bytes:
    """What stands from byte `offset` of a segment on when these groups were written there."""
    data = b""
    for group in groups:
        data += b"".join(group_buffers(group, offset + len(data)))
    return data


def one_by_one(log: Sequence[Batch]) -> bytes:
    """The same, each batch a group of its own."""
    return written([[batch] for batch in log])


def segment(log: Sequence[Batch], *, first_index: int = 1, behind: bytes = UNUSED) -> bytes:
    return encode_segment_header(first_index, CLUSTER) + one_by_one(log) + behind


def plan_for(data: bytes, vote: Vote | None = None) -> RecoveryPlan:
    """Recovery of a log of one segment."""
    return plan_recovery([(segment_name(1), data)], vote or Vote())


class Driver:
    """A started store whose callbacks run in its threads, so that a test can wait for them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.logs: Queue[int] = Queue()
        self.votes: Queue[int] = Queue()
        self.installed: Queue[tuple[int, SnapshotMeta | None]] = Queue()
        self.failures: Queue[StorageFailure] = Queue()
        self._seq = 0
        store.start(
            post=lambda callback: callback(),
            on_log_persisted=self.logs.put,
            on_vote_persisted=self.votes.put,
            on_snapshot_installed=lambda index, snapshot: self.installed.put((index, snapshot)),
            on_failed=self.failures.put,
        )

    def submit(self, *batches: Batch, truncate_from: int = 0) -> int:
        self._seq += 1
        self.store.append(AppendLog(self._seq, truncate_from, batches))
        return self._seq

    def append(self, *batches: Batch, truncate_from: int = 0) -> None:
        """Returns once it is on disk."""
        seq = self.submit(*batches, truncate_from=truncate_from)
        while self.logs.get(timeout=TIMEOUT_S) < seq:
            pass

    def install(self, effect: InstallSnapshot) -> SnapshotMeta | None:
        """Returns once it is done."""
        self.store.install_snapshot(effect)
        index, snapshot = self.installed.get(timeout=TIMEOUT_S)
        assert index == effect.index
        return snapshot

    def compact(self, upto_index: int) -> None:
        """Returns once it is done."""
        self.store.compact(upto_index)
        self.append()

    def save_vote(self, seq: int, term: int, voted_for: int) -> None:
        """Returns once it is on disk."""
        self.store.save_vote(SaveVote(seq, term, voted_for))
        while self.votes.get(timeout=TIMEOUT_S) < seq:
            pass


@contextmanager
def opened(data_dir: Path, *, segment_bytes: int = 64 << 10) -> Iterator[Driver]:
    store = Store.open(data_dir, segment_bytes=segment_bytes)
    try:
        driver = Driver(store)
        if not store.recovered.cluster_id:
            store.found_cluster(CLUSTER)
        yield driver
    finally:
        store.close()


def snapshot_meta(index: int, term: int = 1, cluster_id: str = CLUSTER) -> SnapshotMeta:
    """As recovery wants to know it; size and checksum are of no file."""
    return SnapshotMeta(index, term, 100, 7, 1, configuration(cluster_id))


def snapshot_blocks(index: int, size_bytes: int = 3_000) -> list[bytes]:
    """What a snapshot of this index holds."""
    return [b"%d:%d" % (index, number) * (size_bytes // 8) for number in range(3)]


def take_snapshot(
    snapshots: SnapshotStore, index: int, term: int = 1, *, cluster_id: str = CLUSTER
) -> SnapshotMeta:
    file = snapshots.create(index, term, 1, configuration(cluster_id))
    for block in snapshot_blocks(index):
        file.write_blocks(block)
    return file.finish()


def snapshot_bytes(
    index: int, term: int = 1, *, cluster_id: str = CLUSTER, size_bytes: int = 3_000
) -> bytes:
    """The whole file of a snapshot."""
    blocks = snapshot_blocks(index, size_bytes)
    data = encode_header(SnapshotHeader(index, term, 1, configuration(cluster_id)))
    for number, block in enumerate(blocks):
        data += encode_block_prefix(number, block) + block
    return data + encode_end(len(blocks))


def of_version_2() -> bytes:
    """The beginning of a snapshot in a format that this program does not know."""
    head = b"RAFTSNAP" + struct.pack("<HH", 2, 0)
    return head + struct.pack("<I", google_crc32c.value(head)) + b"more"


def receive(
    snapshots: SnapshotStore, data: bytes, index: int, term: int = 1, *, chunk: int = 1_000
) -> InstallSnapshot:
    """Have a leader's snapshot written piece by piece; what installs it then."""
    checksum = google_crc32c.value(data)
    for offset in range(0, len(data), chunk):
        piece = data[offset : offset + chunk]
        effect = WriteSnapshot(index, term, len(data), checksum, offset, piece)
        assert snapshots.write_chunk(effect) == offset + len(piece)
    return InstallSnapshot(index, term, len(data), checksum)


def recovered_log(data_dir: Path) -> tuple[Batch, ...]:
    """Everything that is in the log; the directory is opened and closed."""
    store = Store.open(data_dir, segment_bytes=64 << 10)
    try:
        image = store.recovered.log
        log = store.read(1, 1 << 40)
        assert (log[-1].last_index if log else 0) == image.last_index
        assert image.tail == log[len(log) - len(image.tail) :]
        return log
    finally:
        store.close()


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def flip(path: Path, position: int) -> None:
    """Change one bit of this byte."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def failing(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> Callable[[], None]:
    """From now on this call of `os` fails; what is returned puts it right."""
    real = getattr(os, name)

    def call(*_args: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, name, call)
    return lambda: monkeypatch.setattr(os, name, real)
