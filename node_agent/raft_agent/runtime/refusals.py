"""The core's refusals in words for people, each with what to do next."""

from __future__ import annotations

from raft_agent.api.host import Failure
from raft_agent.api.protocol import ErrorCode
from raft_agent.consensus.node import Node
from raft_agent.consensus.types import Configuration, RefusalReason, Role

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


def why_not_leading(node: Node, leader: str = "") -> Failure:
    """Why `node`, which does not lead, can't do what only a leader does: NOT_LEADER when it knows
    one to pass it on to, whose name is `leader`."""
    reason = RefusalReason.NOT_LEADER
    if node.state.failed:
        reason = RefusalReason.STORAGE_FAILED
    elif node.role is Role.FRESH:
        reason = RefusalReason.FRESH
    elif node.state.was_removed:
        reason = RefusalReason.REMOVED
    elif node.state.diverged_index:
        reason = RefusalReason.STATE_DIFFERS
    elif node.leader_id in (0, node.state.member_id):
        reason = RefusalReason.NO_LEADER
    is_elsewhere = reason is RefusalReason.NOT_LEADER
    return failure_of(reason, leader if is_elsewhere else "", node.state.failed)


def no_such_member(configuration: Configuration | None, name: str) -> Failure:
    members = configuration.members if configuration is not None else ()
    names = ", ".join(sorted(member.name for member in members))
    return Failure(ErrorCode.NO_SUCH_MEMBER, f"{name} is no member", f"The members are: {names}")


_WORDS = {
    RefusalReason.NOT_LEADER: (
        ErrorCode.NOT_LEADER,
        "Not leader - send to leader node",
        "Ask again in a moment: raftctl status names the leader",
    ),
    RefusalReason.NO_LEADER: (
        ErrorCode.NO_LEADER,
        "No leader is known at the moment",
        NO_LEADER_HINT,
    ),
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
    RefusalReason.NOT_READY: (
        ErrorCode.CHANGE_PENDING,
        "The leader is new and does not know yet what is committed",
        "Try again in a moment",
    ),
    RefusalReason.CHANGE_PENDING: (
        ErrorCode.CHANGE_PENDING,
        "Another change of the members is under way",
        "Try again when it is through: raftctl member list",
    ),
    RefusalReason.CONFIGURATION_MOVED: (
        ErrorCode.CONFLICT,
        "The members have changed since",
        "Look at them and decide anew: raftctl member list",
    ),
    RefusalReason.WOULD_LOSE_QUORUM: (
        ErrorCode.QUORUM_AT_RISK,
        "Of the voters that would be left, too few answer at the moment to be a majority",
        "Bring the silent ones back, or remove those first: raftctl health; --force does it all "
        "the same",
    ),
    RefusalReason.NO_VOTER_LEFT: (
        ErrorCode.REFUSED,
        "It is the only voter: without it there is no cluster",
        "Stop the agent instead, or add another member first",
    ),
    RefusalReason.UNKNOWN_MEMBER: (
        ErrorCode.NO_SUCH_MEMBER,
        "There is no such member",
        "See the members: raftctl member list",
    ),
    RefusalReason.NAME_TAKEN: (
        ErrorCode.REFUSED,
        "Another member has this name",
        "See the members: raftctl member list",
    ),
    RefusalReason.ADDRESS_TAKEN: (
        ErrorCode.REFUSED,
        "Another member has this address",
        "See the members: raftctl member list",
    ),
    RefusalReason.ID_REMOVED: (
        ErrorCode.REFUSED,
        "That id was a member once and was removed; ids are refused for ever",
        "Empty the node's data directory, start it and ask again: it gets a new id",
    ),
    RefusalReason.ID_TAKEN: (
        ErrorCode.REFUSED,
        "That id is a member already",
        "See the members: raftctl member list",
    ),
    RefusalReason.ALREADY_VOTER: (
        ErrorCode.REFUSED,
        "It is a voter already",
        "See the members: raftctl member list",
    ),
    RefusalReason.LEADERSHIP_LOST: (
        ErrorCode.UNKNOWN_OUTCOME,
        "Leadership was lost before the change was committed; it may still come about",
        "See what became of it: raftctl member list",
    ),
    RefusalReason.LEADER_KNOWN: (
        ErrorCode.REFUSED,
        "A leader is known, or was heard a moment ago: the cluster has a majority",
        "Nothing is lost that has to be recovered: raftctl health",
    ),
    RefusalReason.QUORUM_ANSWERS: (
        ErrorCode.REFUSED,
        "A majority of the voters answers: the cluster goes on by itself once they have elected "
        "a leader",
        "Wait for that, and see who is there: raftctl health",
    ),
    RefusalReason.OTHER_GENERATION: (
        ErrorCode.REFUSED,
        "The cluster was recovered at another member already, without this one",
        "Leave that as it is: this member comes in again, or is to be joined anew, see "
        "raftctl events",
    ),
    RefusalReason.RECOVER_ELSEWHERE: (
        ErrorCode.REFUSED,
        "Another survivor has a more complete log: recovering here would lose what it has",
        "See which one: raftctl recover --dry-run",
    ),
    RefusalReason.RECOVERY_PENDING: (
        ErrorCode.BUSY,
        "A recovery, or the state of a leader's snapshot, is just being written to this disk",
        "Try again in a moment",
    ),
    RefusalReason.STATE_DIFFERS: (
        ErrorCode.STATE_DIFFERS,
        "This node's state differs from the other members'; it serves nothing until it is rebuilt",
        "Use another member, and here run: raftctl rebuild",
    ),
    RefusalReason.REMOVED: (
        ErrorCode.REMOVED,
        "This node is no member of the cluster any more",
        "Use another member; to bring this node back, stop it, empty its data directory, start it, "
        "and at a member: raftctl --node MEMBER join NAME ADDR",
    ),
}
