"""What the host tells the core."""

from __future__ import annotations

import msgspec

from raft_agent.consensus.batch import Batch
from raft_agent.consensus.data import MembershipChange, SnapshotMeta, Survivor
from raft_agent.consensus.messages import Message


class LeaderStamp(msgspec.Struct, frozen=True, gc=False):
    """The newest header of a leader (AppendEntries or heartbeat) that the kernel saw arrive, read
    by this process or not: for how long none has come since, who sent it, and in which term.
    """

    silence_us: int
    sender: int
    term: int


class TimerExpired(msgspec.Struct, frozen=True, gc=False):
    """The time that `Node.next_deadline_us` named has come. Only an election timer looks at the
    rest:

    `leader_silence_us`: for how long the kernel has not received data from the leader on a
    connection whose last frame was of the current term; None when it can't tell.
    `stamp`: what a program in the kernel saw. It knows what came, where a socket only knows that
    something did, so it goes first. None when there is no such program or it has lost track.
    """

    leader_silence_us: int | None = None
    stamp: LeaderStamp | None = None


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
    """Wants an index at which a linearizable read may be answered: `ReadReady` or `Refused`.
    `lease`: the leader's lease is proof enough, where it has one."""

    tag: int
    lease: bool = False


class ChangeMembership(msgspec.Struct, frozen=True):
    """Change who belongs to the cluster: `MembershipChanged` once it is committed as a whole, or
    `Refused`. `expected_index`: only if the configuration in force is that of this entry (0: any).
    `force`: also when no quorum of the new voters answers at the moment.
    """

    tag: int
    change: MembershipChange
    expected_index: int = 0
    force: bool = False


class Recover(msgspec.Struct, frozen=True):
    """A majority is lost for good, and who runs the cluster accepts what is lost with it: begin a
    new generation of this member alone. `Recovered` once it is on disk, or `Refused`.

    `generation`: a random number that is not 0. `survivors`: what all other members say that can be
    reached, asked just now. `floor`: as in Generation.
    """

    tag: int
    generation: int
    survivors: tuple[Survivor, ...]
    floor: int


class Superseded(msgspec.Struct, frozen=True, gc=False):
    """The member `peer` belongs to a later generation, which goes back to this node's.
    `is_awaited`: this node is to come in again with an empty log; else it is a member no more.
    """

    peer: int
    generation: int
    is_awaited: bool


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

    Empty when the log was cut or compacted there in the meantime.
    """

    purpose: int
    from_index: int
    batches: tuple[Batch, ...]


class Applied(msgspec.Struct, frozen=True, gc=False):
    """The batches of the latest `Apply`, up to `index`, were applied to the state machine."""

    index: int


class SnapshotTaken(msgspec.Struct, frozen=True):
    """This snapshot of the state machine is durable; entries up to `compact_to` are not needed for
    a start any more, because an older durable snapshot holds them too.
    """

    snapshot: SnapshotMeta
    compact_to: int


class SnapshotRead(msgspec.Struct, frozen=True):
    """The answer to a `ReadSnapshot`. Empty when that snapshot is gone."""

    peer: int
    index: int
    offset: int
    data: bytes


class SnapshotWritten(msgspec.Struct, frozen=True, gc=False):
    """The answer to a `WriteSnapshot`: the file holds all bytes before `offset`."""

    index: int
    offset: int


class SnapshotInstalled(msgspec.Struct, frozen=True):
    """The answer to an `InstallSnapshot`: log and state machine are those of the snapshot, durably;
    None when its checksum did not match, and nothing was changed.
    """

    index: int
    snapshot: SnapshotMeta | None


class AuditWanted(msgspec.Struct, frozen=True, gc=False):
    """Somebody waits for the members' states to be compared. Only a leader hears it, and only when
    no comparison is under way."""


class StateHashed(msgspec.Struct, frozen=True, gc=False):
    """The state after the audit entry `index` comes to `digest`, 64 bits that differ when states do
    (`audit.UNREADABLE`: it could not be read). `work_us`: the processor's time that this took.
    """

    index: int
    digest: int
    work_us: int


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
    | ChangeMembership
    | Recover
    | Superseded
    | SnapshotTaken
    | SnapshotRead
    | SnapshotWritten
    | SnapshotInstalled
    | AuditWanted
    | StateHashed
)
