"""What the messages, events and effects are made of.

All of it is immutable data. Times are integers in microseconds of one clock that the host owns,
never goes back and goes on while the machine is suspended; member ids are unsigned 64-bit integers
that are never 0; indexes and terms are unsigned 64-bit integers that start at 1 (0 means "none").
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


class Joining(msgspec.Struct, frozen=True, gc=False):
    """The learner `id` becomes a voter once it has caught up; in the same change the member
    `replaces` (0: nobody) goes."""

    id: int
    replaces: int = 0


class Generation(msgspec.Struct, frozen=True):
    """A cluster's life since it was founded or recovered (`recovery.py`). Members of different
    generations have nothing to say to each other.

    `id`: a random number, 0 for the life that began with the first entry; `former`: the generations
    that it goes back to, oldest first. `awaited`: survivors that are to come in again, under their
    names and new ids; the ids here are those that they had. `floor`: numbers that the state machine
    gives out lie behind it, because others up to there may have been given out by entries that are
    lost.
    """

    id: int = 0
    former: tuple[int, ...] = ()
    awaited: tuple[Member, ...] = ()
    floor: int = 0


class Configuration(msgspec.Struct, frozen=True):
    """Who belongs to the cluster. Part of the replicated log; all tuples are sorted by id.

    `voters_outgoing` is C_old of joint consensus (§6 of the paper) and empty when not joint; who is
    in it and neither among the voters nor the learners leaves with the joint configuration.
    `removed` holds ids that were members once and are refused for ever. `joining` names the
    learners that are to become voters. `generation`: unset in a cluster that was never recovered
    nor restored, whose configurations are written as if there was no such thing.
    """

    cluster_id: str
    members: tuple[Member, ...]
    voters: tuple[int, ...]
    voters_outgoing: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    removed: tuple[int, ...] = ()
    joining: tuple[Joining, ...] = ()
    generation: Generation | msgspec.UnsetType = msgspec.UNSET


class MembershipChange(msgspec.Struct, frozen=True):
    """What one change does, all of it in one step: `add` these members as learners, have some of
    them (or of the learners that are there) join as voters, `promote` learners to voters, `remove`
    members, `update` the addresses of members that are there (by their ids).
    """

    add: tuple[Member, ...] = ()
    joining: tuple[Joining, ...] = ()
    promote: tuple[int, ...] = ()
    remove: tuple[int, ...] = ()
    update: tuple[Member, ...] = ()


class SnapshotMeta(msgspec.Struct, frozen=True):
    """A durable snapshot: the state after the entry `index` of `term`, in a file of `size_bytes`
    whose CRC32C is `checksum`. `configuration` was in force there, from its entry
    `configuration_index` on.
    """

    index: int
    term: int
    size_bytes: int
    checksum: int
    configuration_index: int
    configuration: Configuration


class Standing(msgspec.Struct, frozen=True, array_like=True):
    """How far a member is, as it tells whoever asks before a recovery. `is_able`: its disk works;
    `knows_leader`: it hears one, or is one.
    """

    generation: int
    last_term: int
    last_index: int
    is_able: bool
    knows_leader: bool


class Survivor(msgspec.Struct, frozen=True):
    """Who answered, at which address, and what it said of itself."""

    id: int
    name: str
    address: str
    standing: Standing


class Settings(msgspec.Struct, frozen=True):
    """The core's limits and timeouts; times in microseconds, sizes in bytes.

    `max_uncommitted_bytes` counts what a leader has not committed or not on its own disk.
    `snapshot_chunk_bytes`: how much of a snapshot is sent at once. `disk_stall_us`: when nothing
    has become durable for so long while something was to be, the disk hangs. `clock_drift_ppm`:
    how much faster one member's clock may run than another's (leases count on it).
    `audit_interval_us`: how often a leader has the members compare their states, ten times as
    seldom while nothing is written; 0: only when asked. `audit_patience_us`: how long it waits for
    the answers of others once its own is there.
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
    snapshot_chunk_bytes: int = 1 << 20
    disk_stall_us: int = 2_000_000
    clock_drift_ppm: int = 1_000
    audit_interval_us: int = 0
    audit_patience_us: int = 10_000_000


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

    (`base_index`, `base_term`): the entry before the first one that the log holds, (0, 0) for a log
    that was never compacted; `last_index` is `base_index` when it holds none.
    `term_runs`: (first index, term) of each run of entries of one term, rising, behind the base.
    `configurations`: (index, configuration) of every configuration entry, rising; when there is a
    base, the one in force there comes first. `tail`: the last batches, consecutive up to
    `last_index`, as many as are worth keeping in memory.
    """

    base_index: int = 0
    base_term: int = 0
    last_index: int = 0
    term_runs: tuple[tuple[int, int], ...] = ()
    configurations: tuple[tuple[int, Configuration], ...] = ()
    tail: tuple[Batch, ...] = ()
