"""Members' states in the API: compared on demand, thrown away where one is wrong, and made wrong
for tests.

Use them as members of `protocol`.
"""

from __future__ import annotations

import msgspec

from raft_agent.api.terms import BaseRequest, KeyText


class StateCheck(BaseRequest, frozen=True, tag="state_check"):
    """Have all members compare their states now. Asked of a follower, the leader does it."""

    forward: bool = True


class Rebuild(BaseRequest, frozen=True, tag="rebuild"):
    """Throw away this node's state, and what is damaged of its log and its snapshots, and start
    anew from the rest. `force`: also when nothing is known to be wrong."""

    force: bool = False


class FaultFlip(BaseRequest, frozen=True, tag="fault_flip"):
    """Turn one bit of the key's value in this node's memory, and nowhere else. Only an agent that
    was started for such tests does it."""

    key: KeyText


class MemberState(msgspec.Struct, frozen=True):
    """`state`: "agrees" with a majority, "differs", "unreadable" (or known before to differ) or
    "silent"; "unknown" while no majority agrees. `digest`: what it comes to, 16 hexadecimal digits,
    or ""."""

    name: str
    state: str
    digest: str = ""


class StateCheckResult(msgspec.Struct, frozen=True):
    """The states behind the log index `index`. `agreed`: those of a majority are equal."""

    index: int
    agreed: bool
    members: list[MemberState]


class RebuildResult(msgspec.Struct, frozen=True):
    """`reason`: what is wrong with what is thrown away."""

    reason: str
