"""What the requests of `protocol` are answered with; maps on the wire.

Use them as members of `protocol`.
"""

from __future__ import annotations

import msgspec

from raft_agent.api.kernel import EbpfStatus


class WriteResult(msgspec.Struct, frozen=True, gc=False):
    """Send, Put, Delete, SettingSet. `revision` is the store's after the write; `deleted` counts
    keys."""

    index: int
    term: int
    revision: int
    deleted: int = 0


class KeyValue(msgspec.Struct, frozen=True, gc=False):
    """Get; List holds many. `revision` is the key's mod revision, `version` counts its puts since
    it was created. `age_ms`: of a stale read of one key, how old it may be; null when not known.
    `lease`: the one that the key ends with; 0, or left out: none.
    """

    key: str
    value: bytes
    revision: int
    create_revision: int
    version: int
    age_ms: int | None = None
    lease: int = 0


class ListResult(msgspec.Struct, frozen=True):
    """`more`: keys were left out; go on with after = the last key. `revision` is the store's.
    `age_ms`: of a stale read, how old all of it may be; null when that is not known."""

    keys: list[KeyValue]
    more: bool
    revision: int
    age_ms: int | None = None


class OperationResult(msgspec.Struct, frozen=True):
    """Of one operation of a transaction: how many keys it deleted, and those that it found; `more`:
    some were left out."""

    deleted: int = 0
    more: bool = False
    keys: list[KeyValue] = []


class TxnResult(msgspec.Struct, frozen=True):
    """`succeeded`: all compares held, so that `results` are those of `then`, else of `otherwise`.
    `revision` is the store's after it."""

    index: int
    term: int
    revision: int
    succeeded: bool
    results: list[OperationResult]


class LeaseResult(msgspec.Struct, frozen=True):
    """The lease has `ttl_ms` from now on."""

    lease: int
    ttl_ms: int


class LeaseInfo(msgspec.Struct, frozen=True):
    """`remaining_ms`: until it ends unless it is kept alive; null where the leader is not asked.
    `key_count`: how many keys end with it; `keys`: these, in byte order, where one lease was asked
    for."""

    lease: int
    ttl_ms: int
    remaining_ms: int | None
    key_count: int
    keys: list[str] = []


class LeaseListResult(msgspec.Struct, frozen=True):
    leases: list[LeaseInfo]


class SessionResult(msgspec.Struct, frozen=True):
    session: int


class SettingInfo(msgspec.Struct, frozen=True):
    """A setting that all nodes share."""

    name: str
    value: int
    default: int
    meaning: str


class SettingsResult(msgspec.Struct, frozen=True):
    settings: list[SettingInfo]


class MessageItem(msgspec.Struct, frozen=True, gc=False):
    """`time` is RFC 3339 in UTC with milliseconds, set by the leader."""

    index: int
    time: str
    node: str
    text: str


class MessagesResult(msgspec.Struct, frozen=True):
    last_applied: int
    messages: list[MessageItem]


class KeyEvent(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """`type` is "put" or "delete" (then without a value). `lease`: the one that the key ends with,
    or has just ended with. `more`: the next event has the same revision, for one transaction or
    the end of one lease made both. Of the type "bookmark": all changes up to `revision` were told.
    """

    type: str
    key: str
    value: bytes
    revision: int
    index: int
    lease: int = 0
    more: bool = False


class MemberInfo(msgspec.Struct, frozen=True):
    """`role`: "voter" or "learner"; `id` is 16 hexadecimal digits. `state`: "joining" for a learner
    that is to become a voter, "leaving" for a voter that is on its way out, else empty. `agent`:
    which raft-agent it runs; `knows`: the oldest and the newest cluster version that this one
    knows; "" and None while that is not known here.
    """

    name: str
    id: str
    address: str
    role: str
    state: str = ""
    agent: str = ""
    knows: tuple[int, int] | None = None


class MemberListResult(msgspec.Struct, frozen=True):
    """`configuration_index`: the log index of the configuration in force; `pending`: a change is on
    its way; `removed`: ids that were members once and are refused for ever."""

    cluster_id: str
    leader: str | None
    members: list[MemberInfo]
    configuration_index: int = 0
    pending: bool = False
    removed: list[str] = []


class MembershipResult(msgspec.Struct, frozen=True):
    """Join, Leave, MemberPromote, MemberUpdate. `index`: the log index of the configuration in
    force; `warnings` are sentences on what the cluster lacks now; `note` says what was done;
    `pending`: more of the change is still to come."""

    index: int
    warnings: list[str]
    members: list[MemberInfo]
    note: str = ""
    pending: bool = False


def voter_warnings(voters: int) -> list[str]:
    """What people should know of a cluster with so many voters."""
    if voters < 2 or voters % 2:
        return []
    loss = (voters - 1) // 2
    return [
        f"{voters} voters bear the loss of {loss}, no more than {voters - 1} would: add one more, "
        "or remove one"
    ]


class ChallengeResult(msgspec.Struct, frozen=True):
    nonce: bytes


class ProgressInfo(msgspec.Struct, frozen=True):
    """`lag` in entries; `last_contact_ms` is null before the first contact."""

    match_index: int
    lag: int
    last_contact_ms: int | None


class StatusResult(msgspec.Struct, frozen=True, omit_defaults=False):
    """`role`: leader, follower, candidate, learner; a node without a cluster says follower and an
    empty cluster_id, and `note` says what it waits for. `id`: its own, as in MemberInfo, also
    while it is no member. `removed`: it knows that it is no member any more; its log may end
    before the entry that settled it, and so still have it as one. `superseded`: that is so because
    others went on without it (`raftctl recover`), so its data may be all that is left of something.
    `version`: of this raft-agent; `cluster_version`: what is in force, 0 without a cluster;
    `knows`: the oldest and the newest cluster version that this raft-agent knows.
    `generation`: the number of the one that a recovery began, in 16 hexadecimal digits; empty for
    that of the founding."""

    node_id: str
    role: str
    term: int
    commit_index: int
    last_applied: int
    leader: str | None
    peers: list[str]
    voters: list[str]
    learners: list[str]
    members: list[MemberInfo]
    cluster_id: str
    version: str
    ebpf: EbpfStatus
    progress: dict[str, ProgressInfo] | None = None
    note: str = ""
    removed: bool = False
    cluster_version: int = 0
    knows: tuple[int, int] = (1, 1)
    generation: str = ""
    id: str = ""
    superseded: bool = False


class HealthMember(msgspec.Struct, frozen=True):
    """`state`: "healthy", "lagging", "differs" (its state is not the others'), "unreachable";
    `detail` is a sentence for people; `agent` and `knows` as in MemberInfo."""

    name: str
    id: str
    address: str
    role: str
    state: str
    last_contact_ms: int | None
    match_index: int | None
    lag: int | None
    detail: str = ""
    agent: str = ""
    knows: tuple[int, int] | None = None


class HealthResult(msgspec.Struct, frozen=True):
    quorum: bool
    leader: str | None
    term: int
    members: list[HealthMember]


class EventItem(msgspec.Struct, frozen=True):
    """Something that happened at this node. `kind` like "leader_elected"; facts by name."""

    time: str
    kind: str
    term: int
    text: str
    facts: dict[str, int | str]


class EventsResult(msgspec.Struct, frozen=True):
    events: list[EventItem]


class TransferResult(msgspec.Struct, frozen=True):
    leader: str


class StreamStarted(msgspec.Struct, frozen=True, omit_defaults=True):
    """The first reply of a stream; `index`: from here on nothing is left out. `revision`: of keys,
    nothing behind this revision of the store."""

    index: int
    revision: int = 0


class Latency(msgspec.Struct, frozen=True):
    """How long things took since the agent started: `buckets[i]` counts those of more than 2**(i-1)
    and at most 2**i microseconds, the last bucket everything above; `sum_us` adds all of them up.
    """

    buckets: list[int]
    sum_us: int


class VitalsResult(msgspec.Struct, frozen=True):
    """This node's numbers of one moment, counted since `started`; two of them a while apart show
    what goes on. `time` and `started` are RFC 3339.

    `first_index` to `last_index` are in the log, up to `persisted_index` on the disk, up to
    `commit_index` on a majority's disks, up to `applied_index` in the state. `snapshot_index`: of
    the newest snapshot, 0 without one.

    `latencies`: "commit" of proposals made at this node, "fsync" of the log, "wire" of round trips
    to the other members while this node leads or asks for votes, "loop_lag" of the event loop.
    `proposals` by outcome, `elections` by phase; `queues`: what waits, by place; `counts`: keys,
    sessions, watches and clients.
    """

    time: str
    started: str
    first_index: int
    last_index: int
    persisted_index: int
    commit_index: int
    applied_index: int
    snapshot_index: int
    latencies: dict[str, Latency]
    proposals: dict[str, int]
    elections: dict[str, int]
    queues: dict[str, int]
    counts: dict[str, int]
