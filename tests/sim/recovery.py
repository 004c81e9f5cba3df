"""What a node finds on its disk at start: the agent's own recovery, over bytes made by a crash."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from raft_agent.consensus.batch import Batch
from raft_agent.consensus.types import LogImage, Vote
from raft_agent.storage.format import (
    SEGMENT_HEADER_SIZE,
    decode_vote,
    encode_segment_header,
    encode_vote,
    group_buffers,
    segment_name,
)
from raft_agent.storage.plan import RecoveryPlan, plan_recovery
from raft_agent.storage.scan import batches_between

_FIRST_INDEX = 1
_UNUSED_SPACE = bytes(1024)


class Recovered:
    """`plan` as the storage has it, and the batches that it keeps."""

    __slots__ = ("batches", "plan")

    def __init__(self, plan: RecoveryPlan, batches: list[Batch]) -> None:
        self.plan = plan
        self.batches = batches

    @property
    def vote(self) -> Vote:
        return self.plan.vote

    def log_image(self, rng: random.Random) -> LogImage:
        """The storage keeps as much of the tail in memory as it likes."""
        if not self.batches:
            return self.plan.log_image(())
        keep = rng.randint(0, len(self.batches))
        return self.plan.log_image(tuple(self.batches[len(self.batches) - keep :]))


@lru_cache(maxsize=8)
def _header(cluster_id: str) -> bytes:
    return encode_segment_header(_FIRST_INDEX, cluster_id)


def log_file(batches: Sequence[Batch], group_starts: Sequence[int], cluster_id: str) -> bytearray:
    """The bytes of a log of one segment that was written in groups: the first index of each is in
    `group_starts`, which is sorted.
    """
    data = bytearray(_header(cluster_id))
    starts = [batch.first_index for batch in batches]
    bounds = [*(bisect_left(starts, first) for first in group_starts), len(batches)]
    for begin, end in pairwise(bounds):
        if begin < end:
            data += b"".join(group_buffers(batches[begin:end], len(data)))
    return data


def recover(log: bytes, cluster_id: str, vote: Vote) -> Recovered:
    """Start from a log file with these bytes and zeros behind them.

    Raises raft_agent.storage.errors.StorageError when the agent would refuse to start.
    """
    stored_vote = decode_vote(encode_vote(vote)).vote
    if not cluster_id:
        return Recovered(plan_recovery([], stored_vote), [])
    data = log + _UNUSED_SPACE
    plan = plan_recovery([(segment_name(_FIRST_INDEX), data)], stored_vote)
    end = plan.segments[-1].scan.end_offset if plan.segments else SEGMENT_HEADER_SIZE
    return Recovered(plan, batches_between(data, SEGMENT_HEADER_SIZE, end))
