"""All planted faults."""

from __future__ import annotations

from tests.sim.planted import elections, hosts, reads, replication

FAULTS = (*elections.FAULTS, *replication.FAULTS, *reads.FAULTS, *hosts.FAULTS)
