"""Requests about the members and who leads them.

Use them as members of `protocol`.
"""

from __future__ import annotations

from raft_agent.api.terms import Address, BaseRequest, Name, Number, Proof


class MemberList(BaseRequest, frozen=True, tag="member_list"):
    """`forward`: the leader answers when there is one."""

    forward: bool = False


# `if_configuration` of the following: only while the configuration in force is that of this log
# index (0: any). `patience_ms`: how long the agent may look for a leader that can do it, so that
# who asks hears that nothing has changed while it still listens (0: as long as the agent likes).


class Join(BaseRequest, frozen=True, tag="join"):
    """Add the node at `address` as the member `name`: a voter once it has caught up, or a `learner`
    for good. `replace`: the member that goes in the same change."""

    name: Name
    address: Address
    learner: bool = False
    replace: Name = ""
    if_configuration: Number = 0
    patience_ms: Number = 0


class Leave(BaseRequest, frozen=True, tag="leave"):
    """Remove a member. `force`: also when the others would have no quorum at the moment."""

    name: Name
    force: bool = False
    if_configuration: Number = 0
    patience_ms: Number = 0


class MemberPromote(BaseRequest, frozen=True, tag="member_promote"):
    """Make a learner a voter."""

    name: Name
    if_configuration: Number = 0
    patience_ms: Number = 0


class MemberUpdate(BaseRequest, frozen=True, tag="member_update"):
    """Change the address at which a member is reached."""

    name: Name
    address: Address
    if_configuration: Number = 0
    patience_ms: Number = 0


class JoinChallenge(BaseRequest, frozen=True, tag="join_challenge"):
    """From a new node's agent to a member's: a nonce for JoinSelf."""


class JoinSelf(BaseRequest, frozen=True, tag="join_self"):
    """From a new node's agent to the member that gave the `nonce`: add it as `name`. `proof` shows
    that it knows the cluster's token."""

    name: Name
    address: Address
    nonce: Proof
    proof: Proof


class LeaderTransfer(BaseRequest, frozen=True, tag="leader_transfer"):
    """`target`: a member's name; empty: the voter that is furthest. `forward` as for writes."""

    target: Name = ""
    forward: bool = False
