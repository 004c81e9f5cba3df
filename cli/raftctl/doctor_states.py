"""`raftctl doctor --cluster`: whether all members have the same state."""

from __future__ import annotations

from collections.abc import Iterator

from raft_agent.api import protocol
from raftctl.context import Context
from raftctl.doctor_checks import Finding
from raftctl.errors import CommandError, paste_ready

_LONGEST_S = 150.0


def states(context: Context) -> Iterator[Finding]:
    """Has the members compare, which takes as long as it takes to read the largest state."""
    context.timeout_s = max(context.timeout_s, _LONGEST_S)
    try:
        result = context.ask(protocol.StateCheck(id=1), protocol.StateCheckResult)
    except CommandError as failure:
        yield Finding("fail", "states", failure.error, paste_ready(failure.hint, context.call))
        return
    if not result.agreed:
        text = f"No majority of the members has equal states after index {result.index}"
        yield Finding("fail", "states", text, f"{context.call} health")
    for member in result.members:
        yield _finding(member, result)


def _finding(member: protocol.MemberState, result: protocol.StateCheckResult) -> Finding:
    shown = f"{member.name} has the state {member.digest or '(none)'} after index {result.index}"
    fix = f"raftctl --node {member.name} rebuild"
    if member.state == "agrees":
        return Finding("ok", "state", shown)
    if member.state == "differs":
        return Finding("fail", "state", f"{shown}, which is not the majority's", fix)
    if member.state == "unreadable":
        text = f"{member.name} has a state that is known to be wrong, or can't be read"
        return Finding("fail", "state", text, fix)
    if member.state == "silent":
        text = f"{member.name} has not told what its state comes to"
        return Finding("warn", "state", text, f"raftctl --node {member.name} status")
    return Finding("warn", "state", shown)
