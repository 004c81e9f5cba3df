"""Runs narrowed to what brings a rare fault to light.

The swarm of options.py spreads its runs over everything that can go wrong. A fault that needs one
rare thing to happen in the right moment is looked for where that thing happens all the time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from msgspec import structs

from tests.sim.options import (
    CHANGES,
    EXPORT_FAULTS,
    ClientOptions,
    OperatorOptions,
    Options,
    drift_ppm,
)

Focus = Callable[[Options], Options]


def swarm(options: Options) -> Options:
    """Not narrowed, but for clients that leave transactions and leases alone, and for programs that
    are all the same."""
    return replace(options, install_us=0, clients=replace(options.clients, store=0.0))


def _fixed(nodes: int) -> dict[str, Any]:
    """So many nodes that stay, and good clocks."""
    return {
        "nodes": nodes,
        "spares": 0,
        "operator": None,
        "skew_ppm": (0,) * nodes,
        "wall_ahead_ms": (0,) * nodes,
        "snapshot_every": 0,
        "install_us": 0,
    }


def _writers(options: Options) -> ClientOptions:
    """Many clients that write, and send nothing again."""
    return replace(
        options.clients,
        clients=8,
        think_us=3_000,
        weights=(1, 8, 0, 0, 1),
        lease=0.0,
        once="",
        store=0.0,
    )


def stale_leaders(options: Options) -> Options:
    """Leaders are cut off again and again, and lead on for as long as timeouts allow, while
    clients read from them what others write elsewhere, and what was said before arrives late."""
    election_us = 100_000
    return replace(
        options,
        **_fixed(5),
        faults=("isolate_leader", "one_way", "partition"),
        events=8_000,
        fault_interval_us=4 * election_us,
        calm_start=True,
        settings=structs.replace(
            options.settings,
            heartbeat_interval_us=election_us // 5,
            election_timeout_min_us=election_us,
            election_timeout_max_us=6 * election_us,
            max_append_bytes=4_000,
            max_inflight_messages=8,
            max_uncommitted_bytes=64 << 20,
        ),
        network=replace(
            options.network,
            latency_us=500,
            jitter_us=1_000,
            loss=0.0,
            duplication=0.1,
            reordering=0.2,
            ordered=False,
        ),
        disk=replace(options.disk, fsync_us=50, jitter_us=1_000),
        clients=replace(
            options.clients,
            clients=8,
            think_us=10_000,
            keys=1,
            weights=(10, 4, 0, 0, 0),
            value_bytes=10,
            timeout_us=election_us,
            forward=0.0,
            lease=0.0,
            once="",
            store=0.0,
        ),
    )


def diverging_logs(options: Options) -> Options:
    """Leaders are cut off while clients write to them, so that logs grow apart and are cut."""
    return replace(
        options,
        **_fixed(5),
        calm_start=True,
        faults=("isolate_leader", "partition", "crash", "burst"),
        fault_interval_us=150_000,
        settings=structs.replace(
            options.settings,
            max_append_bytes=1,
            max_inflight_messages=2,
            max_uncommitted_bytes=64 << 20,
        ),
        clients=_writers(options),
    )


def damaged_logs(options: Options) -> Options:
    """The last batches of logs are damaged, often soon after they were acknowledged."""
    return replace(
        options,
        **_fixed(3),
        calm_start=True,
        faults=("damage", "crash", "isolate_leader"),
        fault_interval_us=60_000,
        clients=_writers(options),
    )


def slow_disks(options: Options) -> Options:
    """As `diverging_logs`; and what is to be cut is still being written."""
    return replace(
        diverging_logs(options),
        faults=("isolate_leader", "slow_disk", "burst"),
        fault_interval_us=100_000,
        disk=replace(options.disk, fsync_us=3_000, jitter_us=60_000),
    )


def leases(options: Options) -> Options:
    """As `stale_leaders`, with clocks that run apart and timers that are short: the next leader is
    there as soon as votes allow. Clients read by the lease."""
    stale = stale_leaders(options)
    skew_ppm = (-200_000, 200_000, 200_000)
    return replace(
        stale,
        **{**_fixed(3), "skew_ppm": skew_ppm},
        faults=("isolate_leader", "isolate_leader", "one_way", "transfer", "crash", "clog"),
        fault_interval_us=150_000,
        events=4_000,
        settings=structs.replace(
            stale.settings,
            heartbeat_interval_us=30_000,
            election_timeout_max_us=105_000,
            clock_drift_ppm=drift_ppm(skew_ppm),
        ),
        clients=replace(stale.clients, clients=3, think_us=20_000, lease=1.0),
    )


def memberships(options: Options) -> Options:
    """Members come and go all the time, while leaders are cut off and nodes crash."""
    changing = diverging_logs(options)
    return replace(
        changing,
        **{
            **_fixed(6),
            "nodes": 3,
            "spares": 3,
            "operator": OperatorOptions(100_000, CHANGES),
        },
        faults=("isolate_leader", "partition", "crash", "wipe", "transfer"),
        fault_interval_us=200_000,
        settings=structs.replace(changing.settings, max_append_bytes=4_000),
        clients=replace(changing.clients, clients=3, think_us=20_000),
    )


def snapshots(options: Options) -> Options:
    """Snapshots are taken all the time, and followers fall behind what logs still hold."""
    diverging = diverging_logs(options)
    return replace(
        diverging,
        snapshot_every=3,
        faults=("isolate_leader", "partition", "crash", "crash_while_writing", "damage_snapshot"),
        settings=structs.replace(
            diverging.settings, max_append_bytes=4_000, snapshot_chunk_bytes=1_000
        ),
        clients=replace(diverging.clients, clients=4, think_us=10_000, value_bytes=10),
    )


def sessions(options: Options) -> Options:
    """As `snapshots`; and all writes are sent again when they are not answered."""
    taken = snapshots(options)
    return replace(
        taken,
        snapshot_every=10,
        clients=replace(taken.clients, once="session", ttl_ms=3_000, weights=(1, 4, 1, 1, 4)),
    )


def deadlines(options: Options) -> Options:
    """As `sessions`; and each write has a deadline of its own, often before it is answered."""
    sent_again = sessions(options)
    return replace(sent_again, clients=replace(sent_again.clients, once="deadline", ttl_ms=1_000))


def transactions(options: Options) -> Options:
    """Most of what clients do are transactions and leases, sent again when they are not answered;
    so little goes wrong that most are, and snapshots are taken all the time."""
    return replace(
        options,
        **{**_fixed(3), "snapshot_every": 10},
        calm_start=True,
        faults=("transfer", "crash", "isolate_leader", "clog"),
        fault_interval_us=1_000_000,
        settings=structs.replace(
            options.settings,
            heartbeat_interval_us=30_000,
            election_timeout_min_us=100_000,
            election_timeout_max_us=200_000,
            max_append_bytes=4_000,
            max_uncommitted_bytes=64 << 20,
            snapshot_chunk_bytes=1_000,
            clock_drift_ppm=drift_ppm((0,)),
        ),
        network=replace(options.network, latency_us=500, jitter_us=1_000),
        disk=replace(options.disk, fsync_us=50, jitter_us=1_000),
        clients=replace(
            options.clients,
            clients=3,
            think_us=15_000,
            value_bytes=10,
            timeout_us=30_000,
            forward=1.0,
            once="session",
            ttl_ms=20_000,
            store=0.95,
            lease_ttl_ms=1_000,
        ),
    )


def short_leases(options: Options) -> Options:
    """As `transactions`, with leaders that change often, and clocks that run apart."""
    busy = transactions(options)
    skew_ppm = (-50_000, 50_000, 0)
    return replace(
        busy,
        skew_ppm=skew_ppm,
        wall_ahead_ms=(-5_000, 0, 5_000),
        faults=("isolate_leader", "transfer", "crash", "pause"),
        fault_interval_us=700_000,
        settings=structs.replace(busy.settings, clock_drift_ppm=drift_ppm(skew_ppm)),
        clients=replace(busy.clients, once="", think_us=50_000),
    )


def late_renewals(options: Options) -> Options:
    """As `transactions`; and what is proposed takes long to be applied, so that leases are renewed
    while their ends are on their way."""
    busy = transactions(options)
    return replace(
        busy,
        faults=("transfer", "slow_disk"),
        settings=structs.replace(
            busy.settings, election_timeout_min_us=500_000, election_timeout_max_us=1_000_000
        ),
        network=replace(busy.network, latency_us=10_000, jitter_us=10_000),
        disk=replace(busy.disk, fsync_us=3_000, jitter_us=60_000),
        clients=replace(busy.clients, clients=8, once="", think_us=100_000, timeout_us=500_000),
    )


def audits(options: Options) -> Options:
    """Bits turn in the memory of nodes that compare their states all the time."""
    return replace(
        options,
        **{**_fixed(5), "snapshot_every": 10},
        calm_start=True,
        faults=("flip_state", "flip_state", "flip_state", "transfer", "crash", "isolate_leader"),
        fault_interval_us=300_000,
        settings=structs.replace(
            options.settings,
            heartbeat_interval_us=30_000,
            election_timeout_min_us=100_000,
            election_timeout_max_us=200_000,
            max_append_bytes=4_000,
            max_uncommitted_bytes=64 << 20,
            snapshot_chunk_bytes=1_000,
            clock_drift_ppm=drift_ppm((0,)),
            audit_interval_us=200_000,
            audit_patience_us=200_000,
        ),
        network=replace(options.network, latency_us=500, jitter_us=1_000),
        disk=replace(options.disk, fsync_us=50, jitter_us=1_000),
        clients=replace(
            options.clients, clients=4, think_us=15_000, value_bytes=10, once="", store=0.0
        ),
    )


def read_audits(options: Options) -> Options:
    """As `audits`; and clients read from all nodes all the time, as soon as a bit has turned."""
    audited = audits(options)
    return replace(
        audited,
        faults=("flip_state",),
        events=6_000,
        clients=replace(
            audited.clients, clients=6, think_us=20_000, keys=8, weights=(4, 1, 0, 0, 0)
        ),
    )


def no_audits(options: Options) -> Options:
    """The states are not compared, and no bit turns in memory."""
    return replace(
        options,
        faults=tuple(fault for fault in options.faults if fault != "flip_state"),
        settings=structs.replace(options.settings, audit_interval_us=0),
    )


def no_exports(options: Options) -> Options:
    """No maps are exported."""
    return replace(
        options,
        faults=tuple(fault for fault in options.faults if fault not in EXPORT_FAULTS),
        clients=replace(options.clients, exports=0.0),
    )


def exports(options: Options) -> Options:
    """Maps come, change and go all the time at nodes whose kernels are slow, refuse and see their
    agents killed; so little else goes wrong that most of it is applied."""
    taken = snapshots(options)
    return replace(
        taken,
        snapshot_every=10,
        faults=("isolate_leader", "crash", "pause", *EXPORT_FAULTS),
        fault_interval_us=300_000,
        export_lag_us=20_000,
        settings=structs.replace(
            taken.settings, snapshot_chunk_bytes=1 << 20, clock_drift_ppm=drift_ppm((0,))
        ),
        clients=replace(taken.clients, clients=4, think_us=15_000, exports=1.0),
    )


def upgrades(options: Options) -> Options:
    """Programs of two versions are installed all the time, while leaders change."""
    taken = snapshots(options)
    return replace(
        taken,
        snapshot_every=10,
        install_us=150_000,
        events=6_000,
        faults=("isolate_leader", "crash", "transfer"),
        fault_interval_us=300_000,
        clients=replace(taken.clients, think_us=20_000),
    )


def upgrades_and_joins(options: Options) -> Options:
    """As `upgrades`, and members come and go."""
    return replace(
        memberships(options),
        install_us=150_000,
        faults=("isolate_leader", "crash", "wipe"),
        fault_interval_us=400_000,
    )


def slow_promises(options: Options) -> Options:
    """As `upgrades`; and members stand still again and again."""
    upgrading = upgrades(options)
    return replace(
        upgrading,
        faults=("pause", "slow_disk"),
        fault_interval_us=60_000,
        install_us=400_000,
        disk=replace(options.disk, fsync_us=3_000, jitter_us=20_000),
    )
