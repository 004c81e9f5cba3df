"""Builds committed batches for a machine."""

from __future__ import annotations

from collections.abc import Sequence

from raft_agent.consensus import batch
from raft_agent.consensus.batch import Batch, BatchKind
from raft_agent.machine.commands import Command, encode_command, join_commands
from raft_agent.machine.machine import Machine


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
