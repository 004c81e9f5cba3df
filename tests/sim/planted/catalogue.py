"""All planted faults."""

from __future__ import annotations

from tests.sim.planted import elections, hosts, leases, reads, replication

FAULTS = (*elections.FAULTS, *replication.FAULTS, *reads.FAULTS, *leases.FAULTS, *hosts.FAULTS)
