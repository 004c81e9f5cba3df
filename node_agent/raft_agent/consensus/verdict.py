"""What an audit entry says (see `audit`)."""

from __future__ import annotations

import struct

import msgspec

from raft_agent.consensus.batch import Batch

# The digest of a state that could not be read to its end. It equals no other one, not even itself.
UNREADABLE = 0

_VERDICT = struct.Struct("<QQB")


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """The states behind the entry `index`: a quorum's came to `digest`; not `agreed`: no quorum's
    came to the same."""

    index: int
    digest: int
    agreed: bool


def encode_verdict(verdict: Verdict) -> bytes:
    """The payload of the audit entry that says so."""
    return _VERDICT.pack(verdict.index, verdict.digest, verdict.agreed)


def read_verdict(batch: Batch) -> Verdict | None:
    """What an audit entry says; None for one behind which states are to be compared."""
    if len(batch.payload) != _VERDICT.size:
        return None
    index, digest, agreed = _VERDICT.unpack(batch.payload)
    return Verdict(index, digest, agreed == 1)
