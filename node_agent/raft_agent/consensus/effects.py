"""What the core wants done, in this order."""

from __future__ import annotations

import enum

import msgspec

from raft_agent.consensus.batch import Batch
from raft_agent.consensus.data import Configuration, Role
from raft_agent.consensus.messages import Message


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


class CompactLog(msgspec.Struct, frozen=True, gc=False):
    """The entries up to `upto_index` may be deleted; none behind it."""

    upto_index: int


class ReadSnapshot(msgspec.Struct, frozen=True, gc=False):
    """Read at most `max_bytes` from `offset` on of the own snapshot of `index`, for `peer`.
    Answered by SnapshotRead."""

    peer: int
    index: int
    offset: int
    max_bytes: int


class WriteSnapshot(msgspec.Struct, frozen=True, gc=False):
    """Put a piece of a leader's snapshot into a file, at `offset`; at 0 a new one is begun. Need
    not be durable. Answered by SnapshotWritten."""

    index: int
    term: int
    size_bytes: int
    checksum: int
    offset: int
    data: bytes


class InstallSnapshot(msgspec.Struct, frozen=True, gc=False):
    """The file is complete. If its checksum is right make it durable, then forget the whole log:
    the next entry is `index` + 1. Then put its state into the state machine. After a crash on the
    way either all of the old is there or all of the new. Answered by SnapshotInstalled; what was to
    be written before is written first, and nothing is appended before the answer.
    """

    index: int
    term: int
    size_bytes: int
    checksum: int


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
    NOT_READY = "not_ready"
    CHANGE_PENDING = "change_pending"
    CONFIGURATION_MOVED = "configuration_moved"
    WOULD_LOSE_QUORUM = "would_lose_quorum"
    NO_VOTER_LEFT = "no_voter_left"
    UNKNOWN_MEMBER = "unknown_member"
    NAME_TAKEN = "name_taken"
    ADDRESS_TAKEN = "address_taken"
    ID_REMOVED = "id_removed"
    ID_TAKEN = "id_taken"
    ALREADY_VOTER = "already_voter"
    LEADERSHIP_LOST = "leadership_lost"
    REMOVED = "removed"
    LEADER_KNOWN = "leader_known"
    QUORUM_ANSWERS = "quorum_answers"
    OTHER_GENERATION = "other_generation"
    RECOVER_ELSEWHERE = "recover_elsewhere"
    RECOVERY_PENDING = "recovery_pending"
    STATE_DIFFERS = "state_differs"


class Refused(msgspec.Struct, frozen=True, gc=False):
    """A proposal, a read, a transfer or a change that was refused; nothing of it was appended. Only
    with LEADERSHIP_LOST a change may still come about.

    `leader` is the leader's id when it is known and not this node, else 0; with RECOVER_ELSEWHERE
    that of the survivor to recover at.
    """

    tag: int
    reason: RefusalReason
    leader: int


class ReadReady(msgspec.Struct, frozen=True, gc=False):
    """The read may be answered once the state machine has applied `index`."""

    tag: int
    index: int


class MembershipChanged(msgspec.Struct, frozen=True, gc=False):
    """The change is committed as a whole; its last configuration is the entry `index`."""

    tag: int
    index: int


class Recovered(msgspec.Struct, frozen=True, gc=False):
    """The new generation has begun with the entry `index`, which is on disk: from now on members of
    others are strangers."""

    tag: int
    index: int


class Abandon(msgspec.Struct, frozen=True, gc=False):
    """Another member has begun `generation` without this one, which is to come in anew: put what
    the data directory holds aside and start with an empty one. Nothing is done after this."""

    generation: int


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
    """The configuration in force is now this one, of the entry `index` (not necessarily
    committed)."""

    configuration: Configuration
    index: int


class Note(msgspec.Struct, frozen=True):
    """Something people want to see in log and events: `kind` like "election_started", and facts."""

    kind: str
    facts: dict[str, int | str]


class Judgement(enum.StrEnum):
    AGREES = "agrees"
    DIFFERS = "differs"
    DISPUTED = "disputed"


class StateJudged(msgspec.Struct, frozen=True, gc=False):
    """What the members' comparison says of this node's state after the entry `index`: AGREES with
    that of a quorum, DIFFERS from it (nothing may be applied to it or read from it any more), or
    DISPUTED: no quorum has equal states."""

    index: int
    judgement: Judgement


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
    | MembershipChanged
    | Recovered
    | Abandon
    | CompactLog
    | ReadSnapshot
    | WriteSnapshot
    | InstallSnapshot
    | RoleChanged
    | ConfigurationChanged
    | StateJudged
    | Note
)
