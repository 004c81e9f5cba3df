"""The core's refusals in words for people, each with what to do next."""

from __future__ import annotations

from raft_agent.api.host import Failure
from raft_agent.api.protocol import ErrorCode
from raft_agent.consensus.types import RefusalReason

NO_LEADER_HINT = "Wait for the election, or see which members are alive: raftctl health"


def failure_of(reason: RefusalReason, leader: str, disk_failure: str) -> Failure:
    """`leader`: a name when it is known and elsewhere, else ""; `disk_failure`: what the disk said
    when that is the reason."""
    code, error, hint = _WORDS[reason]
    if reason is RefusalReason.NOT_LEADER and leader:
        hint = f"Send from leader node: {leader}"
    if reason is RefusalReason.STORAGE_FAILED:
        error = disk_failure
    return Failure(code, error, hint, leader)


_WORDS = {
    RefusalReason.NOT_LEADER: (
        ErrorCode.NOT_LEADER,
        "Not leader - send to leader node",
        "Ask again in a moment: raftctl status names the leader",
    ),
    RefusalReason.NO_LEADER: (ErrorCode.NO_LEADER, "There is no leader", NO_LEADER_HINT),
    RefusalReason.BUSY: (
        ErrorCode.BUSY,
        "Too much is waiting to be replicated",
        "Send more slowly, or see whether a member lags: raftctl health",
    ),
    RefusalReason.TRANSFERRING: (
        ErrorCode.BUSY,
        "Leadership is just being handed over",
        "Try again in a moment",
    ),
    RefusalReason.UNKNOWN_TARGET: (
        ErrorCode.NO_SUCH_MEMBER,
        "There is no other voter to hand over to by that name",
        "See the members: raftctl member list",
    ),
    RefusalReason.TIMED_OUT: (
        ErrorCode.TIMED_OUT,
        "The target did not take over in time; this node leads on",
        "See whether it lags: raftctl health",
    ),
    RefusalReason.FRESH: (
        ErrorCode.NOT_IN_CLUSTER,
        "This node belongs to no cluster yet",
        "raftctl status says what it waits for",
    ),
    RefusalReason.STORAGE_FAILED: (
        ErrorCode.STORAGE_FAILED,
        "This node's disk failed",
        "See its log, and use another member meanwhile",
    ),
}
