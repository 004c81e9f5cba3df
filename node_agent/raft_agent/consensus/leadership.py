"""What a node has only while it leads; all of it is gone when it steps down."""

from __future__ import annotations

from collections import deque

import msgspec

from raft_agent.consensus.lease import Lease
from raft_agent.consensus.progress import Progress
from raft_agent.consensus.types import SnapshotMeta


class Transfer(msgspec.Struct, frozen=True, gc=False):
    """A hand-over under way: new proposals wait until it is done or `deadline_us` has passed.
    `tag`: of who asked for it; None: the leader itself."""

    tag: int | None
    target: int
    deadline_us: int


class CatchUp:
    """How a learner that is to become a voter gets on: in this round it gets what was in the log up
    to `target_index` when the round began."""

    __slots__ = ("began_us", "is_done", "round", "target_index")

    def __init__(self, target_index: int, now_us: int) -> None:
        self.round = 1
        self.target_index = target_index
        self.began_us = now_us
        self.is_done = False


class ReadRequest(msgspec.Struct, frozen=True, gc=False):
    """Somebody who waits for a read index: this node (`peer` 0, `number` a tag) or a peer
    (`number` is its request id). `lease`: the lease is proof enough."""

    peer: int
    number: int
    lease: bool = False


class PendingReads:
    """Reads share rounds of heartbeats: those that come while a round is out wait for the next,
    because a reply to a heartbeat from before a read proves nothing for it (§6.4 of the thesis).
    """

    __slots__ = ("acks", "index", "round", "round_request_id", "waiting")

    def __init__(self) -> None:
        self.waiting: list[ReadRequest] = []
        self.round: list[ReadRequest] = []
        self.round_request_id = 0
        self.index = 0
        self.acks: set[int] = set()

    def local_tags(self) -> list[int]:
        return [read.number for read in self.round + self.waiting if read.peer == 0]

    def remote_requests(self) -> list[tuple[int, int]]:
        return [(read.peer, read.number) for read in self.round + self.waiting if read.peer]


class AuditRound:
    """A comparison of the members' states behind the entry `index`. `reports`: what they came to,
    by member; `agreed`: what a quorum's did, 0 while that is not known.
    `deadline_us`: who has not reported by then is not waited for, 0 until this node's own is there.
    `is_left_out`: this node still read its state behind an earlier entry when this one was applied,
    so its own report will not come. `work_us`: how long reading took the processor. `last_index`:
    the entry that closed the round, when nothing had been written since it began.
    """

    __slots__ = (
        "agreed",
        "began_us",
        "deadline_us",
        "index",
        "is_closed",
        "is_left_out",
        "last_index",
        "reports",
        "work_us",
    )

    def __init__(self, index: int, now_us: int) -> None:
        self.index = index
        self.began_us = now_us
        self.deadline_us = 0
        self.work_us = 0
        self.reports: dict[int, int] = {}
        self.agreed = 0
        self.is_closed = False
        self.is_left_out = False
        self.last_index = 0


class Currency:
    """A round of heartbeats that is to prove how current everybody is: those with the id
    `request_id` (0: no round is out) and later ones, since `began_us`. `index`: what was committed
    then; `stamps`: what had come from each peer.
    """

    __slots__ = ("acks", "began_us", "index", "request_id", "stamps")

    def __init__(self) -> None:
        self.request_id = 0
        self.index = 0
        self.began_us = 0
        self.stamps: dict[int, int] = {}
        self.acks: set[int] = set()


class Leadership:
    """`first_index`: the no-op that opened the term; before it is committed, this leader does not
    know what is (§5.4.2, §8).

    `change_tag`: of the membership change that somebody waits for. `settled_index`: the last
    configuration of which all that follows from its commit was done. `departed`: who has gone and
    was not told yet. `announced`: where members say they are, by id; `refused_moves`: what of it
    could not be done yet. `refused_snapshot`: the last that a peer found damaged, the first time at
    `refused_us`; `spoilt_snapshot`: one that is still found so long after that. `told`: what was
    noted once and would come up again with every message. `audit`: the comparison that is under
    way, or was the last; `audit_wanted`: another one is to follow; `odd`: whose states did not fit
    when they were told last.
    `stood_still_us`: how late this leader's own ticks were since it last heard from a quorum.
    """

    __slots__ = (
        "announced",
        "audit",
        "audit_wanted",
        "began_us",
        "catching_up",
        "change_tag",
        "currency",
        "departed",
        "first_index",
        "heartbeat_due_us",
        "lease",
        "odd",
        "progress",
        "reads",
        "refused_moves",
        "refused_snapshot",
        "refused_us",
        "settled_index",
        "spoilt_snapshot",
        "stall_retry_us",
        "stood_still_us",
        "told",
        "transfer",
        "uncommitted",
        "uncommitted_bytes",
    )

    def __init__(self, first_index: int, now_us: int) -> None:
        self.first_index = first_index
        self.began_us = now_us
        self.audit: AuditRound | None = None
        self.audit_wanted = False
        self.odd: set[int] = set()
        self.progress: dict[int, Progress] = {}
        self.heartbeat_due_us = 0
        self.stood_still_us = 0
        self.transfer: Transfer | None = None
        self.reads = PendingReads()
        self.currency = Currency()
        self.lease = Lease()
        self.change_tag: int | None = None
        self.settled_index = 0
        self.departed: set[int] = set()
        self.announced: dict[int, str] = {}
        self.refused_moves: dict[int, str] = {}
        self.catching_up: dict[int, CatchUp] = {}
        self.told: set[tuple[str, int, str]] = set()
        self.stall_retry_us = 0
        self.refused_snapshot: SnapshotMeta | None = None
        self.refused_us = 0
        self.spoilt_snapshot: SnapshotMeta | None = None
        self.uncommitted: deque[tuple[int, int]] = deque()  # last index, bytes
        self.uncommitted_bytes = 0

    def may_be_committed(self, commit_index: int) -> int:
        """Up to where entries may be committed, as far as this leader knows that they are up to
        `commit_index`: those before it may have committed what its log holds of them."""
        return max(commit_index, self.first_index)

    def is_news(self, kind: str, peer: int, detail: str = "") -> bool:
        """Whether this is to be noted: the first time in this term."""
        news = (kind, peer, detail) not in self.told
        self.told.add((kind, peer, detail))
        return news
