"""All planted faults."""

from __future__ import annotations

from tests.sim.planted import (
    audits,
    elections,
    exports,
    freshness,
    hosts,
    leases,
    memberships,
    reads,
    recoveries,
    replication,
    sessions,
    snapshots,
    store,
    versions,
)

FAULTS = (
    *audits.FAULTS,
    *elections.FAULTS,
    *replication.FAULTS,
    *reads.FAULTS,
    *freshness.FAULTS,
    *exports.FAULTS,
    *leases.FAULTS,
    *memberships.FAULTS,
    *recoveries.FAULTS,
    *snapshots.FAULTS,
    *sessions.FAULTS,
    *store.FAULTS,
    *versions.FAULTS,
    *hosts.FAULTS,
)
