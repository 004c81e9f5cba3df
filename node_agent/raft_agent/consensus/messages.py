"""What members say to each other.

Every message names the sender's term. `request_id` is unique per sender and term; a reply repeats
the id of its request. `session` is the replication session: the leader draws a new one each time it
starts to replicate to a peer anew, so that a reply from before cannot move `match_index`.
"""

from __future__ import annotations

import msgspec

from raft_agent.consensus.batch import Batch


class PreVote(msgspec.Struct, frozen=True, gc=False):
    """ "Would you vote for me in `term`?" (§9.6 of the thesis). `term` is the term to come."""

    term: int
    request_id: int
    last_index: int
    last_term: int


class PreVoteReply(msgspec.Struct, frozen=True, gc=False):
    """`term` is the term asked for when granted, else the voter's current term."""

    term: int
    request_id: int
    granted: bool


class RequestVote(msgspec.Struct, frozen=True, gc=False):
    """Figure 2's RequestVote; `transfer` marks an election that the leader itself asked for."""

    term: int
    request_id: int
    last_index: int
    last_term: int
    transfer: bool


class VoteReply(msgspec.Struct, frozen=True, gc=False):
    term: int
    request_id: int
    granted: bool


class AppendEntries(msgspec.Struct, frozen=True, gc=False):
    """Figure 2's AppendEntries; an empty `batches` probes for the point where the logs agree."""

    term: int
    request_id: int
    session: int
    prev_index: int
    prev_term: int
    commit_index: int
    batches: tuple[Batch, ...]


class AppendReply(msgspec.Struct, frozen=True, gc=False):
    """Success: `match_index` is durable at the sender and equal to the leader's log.

    Refusal: the logs differ at the request's prev_index; (`hint_index`, `hint_term`) is the latest
    entry at or before it that may still agree: the follower's own entry there.
    """

    term: int
    request_id: int
    session: int
    success: bool
    match_index: int
    hint_index: int
    hint_term: int


class Heartbeat(msgspec.Struct, frozen=True, gc=False):
    """The leader lives, and `commit_index` (never beyond the receiver's match_index) is committed.

    `request_id` 0 announces a commit and wants no reply. Nothing behind `as_of_index` had been
    acknowledged to anybody when the receiver's clock showed `as_of_us`, one of its own stamps (0:
    none has come back yet).
    """

    term: int
    request_id: int
    session: int
    commit_index: int
    as_of_us: int = 0
    as_of_index: int = 0


class HeartbeatReply(msgspec.Struct, frozen=True, gc=False):
    """`withheld_us`: for how long from its answer on the sender grants nobody a vote, but in an
    election that the leader itself asked for (leases count on it); 0 promises nothing. `stamp_us`:
    what the sender's clock shows; 0 when it is none of the leader's followers."""

    term: int
    request_id: int
    session: int
    withheld_us: int
    stamp_us: int = 0


class TimeoutNow(msgspec.Struct, frozen=True, gc=False):
    """The leader asks the receiver to stand for election at once (§3.10 of the thesis)."""

    term: int
    request_id: int


class ReadIndex(msgspec.Struct, frozen=True, gc=False):
    """A follower asks the leader for an index that a linearizable read must have seen (§6.4).
    `lease`: the leader's lease is proof enough."""

    term: int
    request_id: int
    lease: bool


class ReadIndexReply(msgspec.Struct, frozen=True, gc=False):
    """`index` is 0 when the sender can't confirm that it leads."""

    term: int
    request_id: int
    index: int


class BootstrapAsk(msgspec.Struct, frozen=True):
    """First start: a fresh node with peers asks another one who it is.

    `names` are all the names that the asker's configuration file lists, its own included, sorted;
    none when it is not the one to write the first entry.
    """

    term: int
    request_id: int
    name: str
    address: str
    names: tuple[str, ...]


class BootstrapAnswer(msgspec.Struct, frozen=True):
    """`fresh`: the sender has no log; `token` is then what an install by the asker must repeat.
    Not fresh: `cluster_id` says where it belongs.
    """

    term: int
    request_id: int
    name: str
    address: str
    names: tuple[str, ...]
    fresh: bool
    token: int
    cluster_id: str


class BootstrapInstall(msgspec.Struct, frozen=True):
    """The first entry of a cluster; `token` repeats the receiver's answer. `joins`: the receiver is
    no founding member and joins a cluster that stands."""

    term: int
    request_id: int
    token: int
    batch: Batch
    joins: bool


class SnapshotChunk(msgspec.Struct, frozen=True, gc=False):
    """A piece of the leader's snapshot of (`index`, `index_term`), a file of `size_bytes` with the
    CRC32C `checksum`. Without `data` it only offers the snapshot: the reply says where to go on.
    `token`: a fresh receiver's, from its BootstrapAnswer; else 0.
    """

    term: int
    request_id: int
    session: int
    token: int
    index: int
    index_term: int
    size_bytes: int
    checksum: int
    offset: int
    data: bytes


class SnapshotReply(msgspec.Struct, frozen=True, gc=False):
    """The receiver has the file up to `offset`. `done`: its state is at least that of `index`, and
    its log agrees with the leader's and is on disk up to there.
    """

    term: int
    request_id: int
    session: int
    index: int
    offset: int
    done: bool


class Announce(msgspec.Struct, frozen=True, gc=False):
    """A member is there, at `address`. The leader has the configuration follow; whoever knows that
    the sender was removed says so."""

    term: int
    request_id: int
    address: str


class Removed(msgspec.Struct, frozen=True, gc=False):
    """The receiver is no member any more; that is committed, and for ever."""

    term: int
    request_id: int


class AuditReport(msgspec.Struct, frozen=True, gc=False):
    """The sender's state after the entry `index` comes to `digest` (`audit.UNREADABLE`: it can't be
    read)."""

    term: int
    request_id: int
    index: int
    digest: int


Message = (
    PreVote
    | PreVoteReply
    | RequestVote
    | VoteReply
    | AppendEntries
    | AppendReply
    | Heartbeat
    | HeartbeatReply
    | TimeoutNow
    | ReadIndex
    | ReadIndexReply
    | BootstrapAsk
    | BootstrapAnswer
    | BootstrapInstall
    | SnapshotChunk
    | SnapshotReply
    | Announce
    | Removed
    | AuditReport
)
