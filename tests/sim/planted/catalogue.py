"""All planted faults."""

from __future__ import annotations

from tests.sim.planted import (
    elections,
    freshness,
    hosts,
    leases,
    memberships,
    reads,
    replication,
    sessions,
    snapshots,
    store,
    versions,
)

FAULTS = (
    *elections.FAULTS,
    *replication.FAULTS,
    *reads.FAULTS,
    *freshness.FAULTS,
    *leases.FAULTS,
    *memberships.FAULTS,
    *snapshots.FAULTS,
    *sessions.FAULTS,
    *store.FAULTS,
    *versions.FAULTS,
    *hosts.FAULTS,
)
