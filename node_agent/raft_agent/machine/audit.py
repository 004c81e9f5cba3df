"""What a state comes to, so that members can compare theirs (`consensus.audit`).

Two numbers do it. One runs along with what is applied: each batch's header, in which the checksum
of its commands is, and the revision and the time that it led to. It is kept from the first audit
entry on and is a part of the state, so a member that once applied something differently never looks
like the others again. The other is made of the whole state, item by item, whenever members compare:
only that finds a bit that has turned in memory since.
"""

from __future__ import annotations

import struct

import google_crc32c
import msgspec

from raft_agent.consensus.batch import HEADER_SIZE, Batch
from raft_agent.consensus.types import read_verdict
from raft_agent.machine.blocks import Portion, Section, item_bytes

_AFTER = struct.Struct("<QQ")
_crc32c_of = google_crc32c.extend
# So that no digest is UNREADABLE.
_READ = 1 << 32


class Trail(msgspec.Struct):
    """`applied`: the number that runs along. `disputed_index`: the audit entry behind which no
    quorum of members had equal states, until one has again; else 0."""

    applied: int = 0
    disputed_index: int = 0

    def add(self, batch: Batch, revision: int, time_ms: int) -> None:
        """`batch` was applied, which led to that revision and time."""
        after = batch.record[:HEADER_SIZE] + _AFTER.pack(revision, time_ms)
        self.applied = _crc32c_of(self.applied, after)

    def judge(self, batch: Batch) -> None:
        """Take in what an audit entry says."""
        verdict = read_verdict(batch)
        if verdict is not None:
            self.disputed_index = 0 if verdict.agreed else verdict.index


class StateDigest:
    """Made of the portions of a view, in their order; it does not matter where they were cut."""

    def __init__(self) -> None:
        self._crc = 0
        self._section: Section | None = None

    def add(self, portion: Portion, block: bytes) -> None:
        """`block`: what `encode_block` makes of the portion."""
        if not portion.items:
            return
        if portion.section is not self._section:
            self._section = portion.section
            self._crc = _crc32c_of(self._crc, bytes((portion.section,)))
        self._crc = _crc32c_of(self._crc, item_bytes(portion, block))

    @property
    def value(self) -> int:
        """A CRC32C, which no single turned bit leaves as it was; never 0."""
        return _READ | self._crc
