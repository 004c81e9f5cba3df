"""Builds committed batches for a machine, splits them, and tells states apart."""

from __future__ import annotations

from collections.abc import Sequence

from raft_agent.consensus import batch
from raft_agent.consensus.batch import Batch, BatchKind
from raft_agent.machine.audit import StateDigest
from raft_agent.machine.blocks import encode_block
from raft_agent.machine.commands import VOCABULARY, Command, encode_command, join_commands
from raft_agent.machine.machine import Machine
from raft_agent.machine.snapshot import SnapshotView
from raft_agent.versions import CLUSTER_VERSIONS


def commands_batch(
    first_index: int, commands: Sequence[Command | bytes], *, time_ms: int = 1000, term: int = 1
) -> Batch:
    encoded = [item if isinstance(item, bytes) else encode_command(item) for item in commands]
    payload = join_commands(time_ms, len(encoded), encoded)
    return batch.encode(BatchKind.COMMANDS, first_index, term, len(encoded), payload)


def apply(machine: Machine, *commands: Command | bytes, time_ms: int = 1000) -> list[object]:
    """Apply `commands` as the next batch; their results."""
    results = machine.apply(commands_batch(machine.last_applied + 1, commands, time_ms=time_ms))
    assert results is not None
    return list(results)


def split_commands(payload: memoryview | bytes, count: int) -> Sequence[Command | None]:
    """As a member of the newest cluster version splits the payload of a batch."""
    return VOCABULARY.split(payload, count, CLUSTER_VERSIONS.newest)


def digest_of(view: SnapshotView) -> int:
    """What the state of a view comes to; the view is read to its end and closed."""
    digest = StateDigest()
    try:
        while (portion := view.next_items()) is not None:
            digest.add(portion, encode_block(portion))
    finally:
        view.close()
    return digest.value
