"""A snapshot's file for a client, made while the state machine goes on, without the disk."""

from __future__ import annotations

import asyncio

from raft_agent.api.host import Failure
from raft_agent.api.protocol import SnapshotPiece
from raft_agent.consensus.node import Node
from raft_agent.consensus.types import RefusalReason
from raft_agent.machine.blocks import Portion, encode_block
from raft_agent.machine.machine import Machine
from raft_agent.machine.snapshot import SnapshotView
from raft_agent.runtime.refusals import failure_of
from raft_agent.storage.snapshot_format import (
    SnapshotHeader,
    encode_block_prefix,
    encode_end,
    encode_header,
)


def begin_backup(node: Node, machine: Machine) -> MachineBackup | Failure:
    """A snapshot of what `machine` has applied by now."""
    index, term = machine.last_applied, machine.last_applied_term
    configuration = node.configuration_at(index)
    if configuration is None or not index:
        return failure_of(RefusalReason.FRESH, "", "")
    return MachineBackup(SnapshotHeader(index, term, *configuration), machine)


class MachineBackup:
    """Implements `api.host.Backup`."""

    def __init__(self, header: SnapshotHeader, machine: Machine) -> None:
        self.index = header.index
        self._prefix = encode_header(header)
        self._view: SnapshotView = machine.begin_snapshot()
        # Of the keys, which are most of it.
        self._items = max(machine.key_count(), 1)
        self._done = 0
        self._blocks = 0

    async def next_piece(self) -> SnapshotPiece:
        portion = self._view.next_items()
        prefix, self._prefix = self._prefix, b""
        if portion is None:
            return SnapshotPiece(prefix + encode_end(self._blocks), 1.0, True)
        number, self._blocks = self._blocks, self._blocks + 1
        self._done += len(portion.items)
        loop = asyncio.get_running_loop()
        block = await loop.run_in_executor(None, _encode, number, portion)
        return SnapshotPiece(prefix + block, min(self._done / self._items, 1.0))

    def close(self) -> None:
        self._view.close()


def _encode(number: int, portion: Portion) -> bytes:
    payload = encode_block(portion)
    return encode_block_prefix(number, payload) + payload
