"""Everything that goes into and comes out of the core: messages, events, effects.

All of it is immutable data. Times are integers in microseconds of one monotonic clock that the
host owns; member ids are unsigned 64-bit integers that are never 0; indexes and terms are unsigned
64-bit integers that start at 1 (0 means "none").
"""

from __future__ import annotations

import enum

import msgspec

from raft_agent.consensus.batch import Batch


class Role(enum.StrEnum):
    """What a node is at the moment; `fresh` is a node that belongs to no cluster yet."""

    FRESH = "fresh"
    LEARNER = "learner"
    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre_candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Member(msgspec.Struct, frozen=True, gc=False):
    """One member: an id born with its data directory, a human name, an address "host:port"."""

    id: int
    name: str
    address: str


class Configuration(msgspec.Struct, frozen=True):
    """Who belongs to the cluster. Part of the replicated log; all tuples are sorted by id.

    `voters_outgoing` is C_old of joint consensus (§6 of the paper) and empty when not joint.
    `removed` holds ids that were members once and are refused for ever.
    """

    cluster_id: str
    members: tuple[Member, ...]
    voters: tuple[int, ...]
    voters_outgoing: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    removed: tuple[int, ...] = ()


class Settings(msgspec.Struct, frozen=True):
    """The core's limits and timeouts; times in microseconds, sizes in bytes.

    `max_uncommitted_bytes` counts what a leader has not committed or not on its own disk.
    """

    heartbeat_interval_us: int = 50_000
    election_timeout_min_us: int = 150_000
    election_timeout_max_us: int = 300_000
    max_append_bytes: int = 1 << 20
    max_inflight_messages: int = 256
    max_inflight_bytes: int = 8 << 20
    max_uncommitted_bytes: int = 64 << 20
    max_apply_bytes: int = 1 << 20
    resident_bytes: int = 32 << 20


# --- Messages -----------------------------------------------------------------------------------
# Every message names the sender's term. `request_id` is unique per sender and term; a reply repeats
# the id of its request. `session` is the replication session: the leader draws a new one each time
# it starts to replicate to a peer anew, so that a reply from before cannot move `match_index`.


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

    `request_id` 0 announces a commit and wants no reply.
    """

    term: int
    request_id: int
    session: int
    commit_index: int


class HeartbeatReply(msgspec.Struct, frozen=True, gc=False):
    term: int
    request_id: int
    session: int


class TimeoutNow(msgspec.Struct, frozen=True, gc=False):
    """The leader asks the receiver to stand for election at once (§3.10 of the thesis)."""

    term: int
    request_id: int


class ReadIndex(msgspec.Struct, frozen=True, gc=False):
    """A follower asks the leader for an index that a linearizable read must have seen (§6.4)."""

    term: int
    request_id: int


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
    """The first entry of a new cluster; `token` repeats the receiver's answer."""

    term: int
    request_id: int
    token: int
    batch: Batch


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
)


# --- Events: what the host tells the core ---------------------------------------------------------


class TimerExpired(msgspec.Struct, frozen=True, gc=False):
    """The time that `Node.next_deadline_us` named has come.

    `leader_silence_us`: for how long the kernel has not received data from the leader on a
    connection whose last frame was of the current term; None when it can't tell. Only an election
    timer looks at it.
    """

    leader_silence_us: int | None = None


class Received(msgspec.Struct, frozen=True, gc=False):
    """A message from the member with the id `sender`."""

    sender: int
    message: Message


class PeerConnected(msgspec.Struct, frozen=True, gc=False):
    """A connection to this peer stands (again): whatever was sent before may be lost."""

    peer: int
    name: str


class PeerLost(msgspec.Struct, frozen=True, gc=False):
    peer: int


class Propose(msgspec.Struct, frozen=True, gc=False):
    """`count` commands, already joined to one payload, to be appended as one batch.

    `tag` comes back in `Proposed` or `Refused`.
    """

    tag: int
    count: int
    payload: bytes


class TransferLeadership(msgspec.Struct, frozen=True, gc=False):
    """Hand over to `target`, or with 0 to the voter that is furthest."""

    tag: int
    target: int = 0


class Read(msgspec.Struct, frozen=True, gc=False):
    """Wants an index at which a linearizable read may be answered: `ReadReady` or `Refused`."""

    tag: int


class LogPersisted(msgspec.Struct, frozen=True, gc=False):
    """The `AppendLog` with this number, and all before it, are on disk."""

    seq: int


class VotePersisted(msgspec.Struct, frozen=True, gc=False):
    """The `SaveVote` with this number, and all before it, are on disk."""

    seq: int


class StorageFailed(msgspec.Struct, frozen=True):
    """A write or fsync failed. The core stops taking part; a new core is made from what the disk
    says once it is well again (the old one's memory can't be trusted to match the disk).
    """

    reason: str


class LogRead(msgspec.Struct, frozen=True):
    """The answer to a `ReadLog`: whole consecutive batches, the first one holding `from_index`.

    Empty when the log was cut there in the meantime.
    """

    purpose: int
    from_index: int
    batches: tuple[Batch, ...]


class Applied(msgspec.Struct, frozen=True, gc=False):
    """The batches of the latest `Apply`, up to `index`, were applied to the state machine."""

    index: int


Event = (
    TimerExpired
    | Received
    | PeerConnected
    | PeerLost
    | Propose
    | TransferLeadership
    | Read
    | LogPersisted
    | VotePersisted
    | StorageFailed
    | LogRead
    | Applied
)


# --- Effects: what the core wants done, in this order ---------------------------------------------


class FoundCluster(msgspec.Struct, frozen=True):
    """This node now belongs to the cluster; the first entry follows in an `AppendLog`.

    The storage stamps `cluster_id` into the log's files.
    """

    cluster_id: str


class AppendLog(msgspec.Struct, frozen=True):
    """Write `batches` behind the log. `truncate_from` > 0: first cut the log from that index on.

    Answered by LogPersisted(seq). Numbers rise by one.
    """

    seq: int
    truncate_from: int
    batches: tuple[Batch, ...]


class SaveVote(msgspec.Struct, frozen=True, gc=False):
    """Write term and vote (0: none) atomically. Answered by VotePersisted(seq)."""

    seq: int
    term: int
    voted_for: int


class Send(msgspec.Struct, frozen=True, gc=False):
    """Send once AppendLog `after_log` and SaveVote `after_vote` are on disk (0: at once)."""

    to: int
    message: Message
    after_log: int
    after_vote: int


class ReadLog(msgspec.Struct, frozen=True, gc=False):
    """Read whole batches from the one that holds `from_index` on, at least one, until `max_bytes`
    are exceeded. `purpose` comes back: the peer's id, or 0 for applying.
    """

    purpose: int
    from_index: int
    max_bytes: int


class Apply(msgspec.Struct, frozen=True):
    """These batches are committed: apply them in order, then tell `Applied`."""

    batches: tuple[Batch, ...]


class Proposed(msgspec.Struct, frozen=True, gc=False):
    """The proposal stands in the leader's log, not yet committed. Its first command has the index
    `first_index`. If another term's batch is applied at that index, it was lost for good.
    """

    tag: int
    first_index: int
    term: int


class RefusalReason(enum.StrEnum):
    NOT_LEADER = "not_leader"
    NO_LEADER = "no_leader"
    BUSY = "busy"
    TRANSFERRING = "transferring"
    UNKNOWN_TARGET = "unknown_target"
    TIMED_OUT = "timed_out"
    FRESH = "fresh"
    STORAGE_FAILED = "storage_failed"


class Refused(msgspec.Struct, frozen=True, gc=False):
    """A proposal, a read or a transfer that was refused; nothing of it was appended.

    `leader` is the leader's id when it is known and not this node, else 0.
    """

    tag: int
    reason: RefusalReason
    leader: int


class ReadReady(msgspec.Struct, frozen=True, gc=False):
    """The read may be answered once the state machine has applied `index`."""

    tag: int
    index: int


class TransferDone(msgspec.Struct, frozen=True, gc=False):
    """Leadership has moved to `leader`."""

    tag: int
    leader: int


class RoleChanged(msgspec.Struct, frozen=True, gc=False):
    """Role, term or leader (0: unknown) changed."""

    role: Role
    term: int
    leader: int


class ConfigurationChanged(msgspec.Struct, frozen=True):
    """The configuration in force is now this one (not necessarily committed)."""

    configuration: Configuration


class Note(msgspec.Struct, frozen=True):
    """Something people want to see in log and events: `kind` like "election_started", and facts."""

    kind: str
    facts: dict[str, int | str]


Effect = (
    FoundCluster
    | AppendLog
    | SaveVote
    | Send
    | ReadLog
    | Apply
    | Proposed
    | Refused
    | ReadReady
    | TransferDone
    | RoleChanged
    | ConfigurationChanged
    | Note
)


class Vote(msgspec.Struct, frozen=True, gc=False):
    """Durable state besides the log: the latest term seen and who got this node's vote in it.

    (`floor_term`, `floor_index`): a damaged batch at the log's end may have been acknowledged;
    until the log reaches it again this node votes as if its log ended there and does not stand
    for election.
    """

    term: int = 0
    voted_for: int = 0
    floor_term: int = 0
    floor_index: int = 0


class LogImage(msgspec.Struct, frozen=True):
    """What the storage found at start.

    `term_runs`: (first index, term) of each run of entries of one term, rising; empty for an empty
    log. `configurations`: (index, configuration) of every configuration entry, rising.
    `tail`: the last batches, consecutive up to `last_index`, as many as are worth keeping in
    memory.
    """

    first_index: int = 1
    last_index: int = 0
    term_runs: tuple[tuple[int, int], ...] = ()
    configurations: tuple[tuple[int, Configuration], ...] = ()
    tail: tuple[Batch, ...] = ()
