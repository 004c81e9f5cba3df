"""What one run is like: everything that is chosen by the seed before the first event.

Swarm testing (Groce and others, 2012): each run leaves out a random half of what could go wrong,
because faults that always come together hide what each of them would find alone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from msgspec import structs

from raft_agent.consensus.types import Settings

_MILLION = 1_000_000

# Before the healing phase, which has some hundreds more.
EVENTS = 3000

FAULTS = (
    "crash",
    "crash_mid_step",
    "crash_while_writing",
    "crash_all",
    "pause",
    "partition",
    "isolate_leader",
    "one_way",
    "partial_partition",
    "clog",
    "lossy",
    "slow_disk",
    "fsync_fails",
    "disk_full",
    "damage",
    "damage_snapshot",
    "wipe",
    "transfer",
    "burst",
)

# Where maps are exported.
EXPORT_FAULTS = ("kill_while_it_exports", "map_refused")


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """Times in microseconds, the rest are probabilities per message.

    `ordered`: a link is a TCP stream, which keeps the order, loses nothing while it stands and
    everything when it breaks. Otherwise messages also come late, twice and to the next process.
    """

    latency_us: int
    jitter_us: int
    loss: float
    duplication: float
    reordering: float
    ordered: bool


@dataclass(frozen=True, slots=True)
class DiskOptions:
    """`fsync_us` and `jitter_us`: how long an fsync takes. `tear`: the probability that a crash
    leaves a part of the first write that did not survive; `kill`: that a crash is only the
    process's, so that the page cache survives.
    """

    fsync_us: int
    jitter_us: int
    tear: float
    kill: float


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """`clients` work at once, each waits `think_us` on average between its requests.

    `weights`: how often get, put, delete, cas, send. `value_bytes`: the longest value.
    `forward`: the probability that a follower is asked to pass a write on; `lease`: that a read is
    content with the leader's lease. `once`: how they keep writes from taking effect twice, in a
    "session", by a "deadline", or ("") not at all; `ttl_ms`: of either. `store`: the probability
    that what they want is a transaction or has to do with leases, of `lease_ttl_ms` each;
    `exports`: that it has to do with exported maps.
    """

    clients: int
    think_us: int
    keys: int
    weights: tuple[int, int, int, int, int]
    value_bytes: int
    timeout_us: int
    forward: float
    lease: float = 0.0
    once: str = ""
    ttl_ms: int = 0
    store: float = 0.0
    lease_ttl_ms: int = 1_000
    exports: float = 0.0


CHANGES = (
    "join",
    "replace",
    "learn",
    "promote",
    "remove",
    "remove_leader",
    "move",
    "recycle",
    "mixed",
    "expected",
    "forced",
)


@dataclass(frozen=True, slots=True)
class OperatorOptions:
    """Somebody changes the membership, `interval_us` apart on average, in the ways of `changes`."""

    interval_us: int
    changes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Options:
    """One run. `nodes` form the cluster, `spares` wait to be joined. `calm_start`: no faults until
    the first leader is there. `skew_ppm`: how much faster each node's clock runs;
    `wall_ahead_ms`: what its clock on the wall shows too much.
    `fault_interval_us`: the mean time between two faults. `operator`: None, nobody changes the
    membership. `snapshot_every`: so many entries; 0, never. `install_us`: the mean time between two
    installations of another program of two; 0: all have the same. `export_lag_us`: how long the
    thread that writes exported maps takes for a job at most.
    """

    nodes: int
    spares: int
    events: int
    calm_start: bool
    settings: Settings
    network: NetworkOptions
    disk: DiskOptions
    clients: ClientOptions
    faults: tuple[str, ...]
    fault_interval_us: int
    skew_ppm: tuple[int, ...]
    wall_ahead_ms: tuple[int, ...]
    timer_late_us: int
    tells_silence: bool
    operator: OperatorOptions | None = None
    snapshot_every: int = 0
    install_us: int = 0
    export_lag_us: int = 0

    @property
    def size(self) -> int:
        """How many machines there are."""
        return self.nodes + self.spares


def options_for(seed: int, *, nodes: int | None = None, events: int = EVENTS) -> Options:
    """The options of run `seed`; the same for ever as long as this function is the same."""
    rng = random.Random(f"options/{seed}")
    count = nodes or rng.choices((1, 2, 3, 4, 5, 6, 7), (2, 3, 30, 6, 45, 4, 10))[0]
    heartbeat_us = rng.choice((20_000, 50_000, 50_000, 100_000))
    election_us = heartbeat_us * rng.choice((3, 3, 5))
    ordered = rng.random() < 0.5
    skewed = rng.random() < 0.5
    # Later parts draw from streams of their own, so that what they add changes no other choice.
    membership = random.Random(f"options/{seed}/membership")
    operator = _operator(membership, election_us) if membership.random() < 0.5 else None
    spares = membership.choice((1, 2, 3)) if operator else 0
    skew_ppm = tuple(rng.randint(-50_000, 50_000) if skewed else 0 for _ in range(count + spares))
    settings = _settings(rng, heartbeat_us, election_us)
    reads = random.Random(f"options/{seed}/reads")
    snapshots = random.Random(f"options/{seed}/snapshots")
    once = random.Random(f"options/{seed}/once")
    apart_ms = once.choice((0, 100, 3_000))
    store = random.Random(f"options/{seed}/store")
    audits = random.Random(f"options/{seed}/audits")
    audit_us = audits.choice((0, 0, 300_000, 1_000_000))
    flips = audit_us and count >= 3 and operator is None and audits.random() < 0.7
    versions = random.Random(f"options/{seed}/versions")
    exports = random.Random(f"options/{seed}/exports")
    exported = exports.choice((0.0, 0.0, 0.3, 0.7))
    return Options(
        nodes=count,
        spares=spares,
        events=events,
        calm_start=rng.random() < 0.7,
        settings=structs.replace(
            settings,
            clock_drift_ppm=drift_ppm(skew_ppm),
            snapshot_chunk_bytes=snapshots.choice((500, 4_000, 1 << 20)),
            audit_interval_us=audit_us,
            audit_patience_us=2 * election_us,
        ),
        network=NetworkOptions(
            latency_us=rng.choice((100, 500, 2_000, 10_000)),
            jitter_us=rng.choice((100, 1_000, 10_000)),
            loss=0.0 if ordered else rng.choice((0.0, 0.01, 0.05)),
            duplication=0.0 if ordered else rng.choice((0.0, 0.01, 0.1)),
            reordering=0.0 if ordered else rng.choice((0.0, 0.02, 0.1)),
            ordered=ordered,
        ),
        disk=DiskOptions(
            fsync_us=rng.choice((50, 500, 3_000)),
            jitter_us=rng.choice((100, 2_000, 20_000, 60_000)),
            tear=rng.choice((0.2, 0.5, 0.8)),
            kill=rng.choice((0.0, 0.3, 0.7)),
        ),
        clients=replace(
            _clients(rng, election_us),
            lease=reads.choice((0.0, 0.5, 1.0)),
            once=once.choice(("", "session", "deadline")),
            ttl_ms=once.choice((1_000, 3_000, 20_000)),
            store=store.choice((0.0, 0.0, 0.3, 0.7)),
            lease_ttl_ms=store.choice((1_000, 1_000, 2_000, 5_000)),
            exports=exported,
        ),
        faults=tuple(fault for fault in FAULTS if rng.random() < 0.5)
        + (("flip_state",) if flips else ())
        + (EXPORT_FAULTS if exported else ()),
        fault_interval_us=election_us * rng.choice((1, 2, 4, 8)),
        skew_ppm=skew_ppm,
        wall_ahead_ms=tuple(once.randint(-apart_ms, apart_ms) for _ in skew_ppm),
        timer_late_us=rng.choice((0, 0, 1_000, 20_000)),
        tells_silence=rng.random() < 0.5,
        operator=operator,
        snapshot_every=snapshots.choice((0, 0, 3, 10, 30)),
        install_us=versions.choice((0, 0, 1, 3, 8)) * 100_000,
        export_lag_us=exports.choice((0, 1_000, 20_000, 200_000)),
    )


def drift_ppm(skew_ppm: tuple[int, ...]) -> int:
    """What must be declared when clocks are so fast: how much less the slowest shows than the
    fastest, and a little for the microseconds that clocks and divisions leave out."""
    slowest, fastest = (_MILLION + skew for skew in (min(skew_ppm), max(skew_ppm)))
    return (fastest - slowest) * _MILLION // fastest + 100


def _operator(rng: random.Random, election_us: int) -> OperatorOptions:
    return OperatorOptions(
        interval_us=election_us * rng.choice((1, 2, 6)),
        changes=tuple(change for change in CHANGES if rng.random() < 0.6),
    )


def _settings(rng: random.Random, heartbeat_us: int, election_us: int) -> Settings:
    return Settings(
        heartbeat_interval_us=heartbeat_us,
        election_timeout_min_us=election_us,
        election_timeout_max_us=election_us * 2,
        max_append_bytes=rng.choice((1, 500, 4_000, 1 << 20)),
        max_inflight_messages=rng.choice((1, 2, 8, 256)),
        max_inflight_bytes=rng.choice((500, 5_000, 8 << 20)),
        max_uncommitted_bytes=rng.choice((1_000, 10_000, 64 << 20)),
        max_apply_bytes=rng.choice((1, 1_000, 1 << 20)),
        resident_bytes=rng.choice((0, 500, 5_000, 32 << 20)),
    )


def _clients(rng: random.Random, election_us: int) -> ClientOptions:
    return ClientOptions(
        clients=rng.choice((1, 3, 5)),
        think_us=rng.choice((10_000, 50_000, 200_000)),
        keys=rng.choice((1, 3, 8)),
        weights=rng.choice(((4, 4, 1, 2, 1), (8, 2, 1, 1, 0), (2, 6, 1, 1, 2), (3, 1, 1, 6, 0))),
        value_bytes=rng.choice((10, 10, 300, 3_000)),
        timeout_us=election_us * rng.choice((2, 5)),
        forward=rng.choice((0.0, 0.5, 1.0)),
    )
