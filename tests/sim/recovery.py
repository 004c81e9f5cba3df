"""What a node finds on its disk at start: the agent's own recovery, over bytes made by a crash."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from raft_agent.consensus.batch import Batch
from raft_agent.consensus.types import LogImage, SnapshotMeta, Vote
from raft_agent.storage.errors import StorageError
from raft_agent.storage.format import (
    SEGMENT_HEADER_SIZE,
    SegmentHeader,
    decode_vote,
    encode_segment_header,
    encode_vote,
    group_buffers,
    segment_name,
)
from raft_agent.storage.plan import RecoveryPlan, plan_recovery
from raft_agent.storage.scan import batches_between
from tests.sim.logfile import LogFile

_UNUSED_SPACE = bytes(1024)


class Recovered:
    """`plan` as the storage has it, and the batches that it keeps."""

    __slots__ = ("batches", "plan")

    def __init__(self, plan: RecoveryPlan, batches: list[Batch]) -> None:
        self.plan = plan
        self.batches = [batch for batch in batches if batch.first_index > plan.base_index]

    @property
    def vote(self) -> Vote:
        return self.plan.vote

    @property
    def log(self) -> LogFile:
        plan = self.plan
        in_force = plan.configurations[0] if plan.base_index else None
        return LogFile(self.batches, (plan.base_index, plan.base_term), in_force)

    def log_image(self, rng: random.Random) -> LogImage:
        """The storage keeps as much of the tail in memory as it likes."""
        if not self.batches:
            return self.plan.log_image(())
        keep = rng.randint(0, len(self.batches))
        return self.plan.log_image(tuple(self.batches[len(self.batches) - keep :]))


@lru_cache(maxsize=8)
def _header(first_index: int, cluster_id: str) -> bytes:
    return encode_segment_header(first_index, cluster_id)


def log_file(log: LogFile, group_starts: Sequence[int], cluster_id: str) -> bytearray:
    """The bytes of a log of one segment that was written in groups: the first index of each is in
    `group_starts`, which is sorted.
    """
    data = bytearray(_header(log.base_index + 1, cluster_id))
    batches = log.batches
    bounds = [*(bisect_left(log.starts, first) for first in group_starts), len(batches)]
    if group_starts and bounds[0] > 0:
        bounds.insert(0, 0)
    for begin, end in pairwise(bounds):
        if begin < end:
            data += b"".join(group_buffers(batches[begin:end], len(data)))
    return data


def recover(
    log: bytes,
    first_index: int,
    cluster_id: str,
    vote: Vote,
    snapshots: tuple[list[SnapshotMeta], list[StorageError]],
) -> Recovered:
    """Start from a log file whose first entry is `first_index`, with these bytes and zeros behind
    them (empty: there is no file), and from `snapshots`, the intact and the damaged ones.

    Raises raft_agent.storage.errors.StorageError when the agent would refuse to start.
    """
    stored_vote = decode_vote(encode_vote(vote)).vote
    intact, damaged = snapshots
    segments: list[tuple[str, bytes]] = []
    last_segment = None
    data = log + _UNUSED_SPACE
    if cluster_id and log:
        segments = [(segment_name(first_index), data)]
        last_segment = SegmentHeader(first_index, cluster_id)
    elif cluster_id and first_index > 1:
        last_segment = SegmentHeader(first_index, cluster_id, is_to_come=True)
    plan = plan_recovery(
        segments,
        stored_vote,
        last_segment=last_segment,
        snapshots=intact,
        damaged_snapshots=damaged,
    )
    if not plan.segments:
        return Recovered(plan, [])
    end = plan.segments[-1].scan.end_offset
    return Recovered(plan, batches_between(data, SEGMENT_HEADER_SIZE, end))
