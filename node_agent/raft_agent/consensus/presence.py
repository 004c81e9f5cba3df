"""A member's own place in the cluster: where it is, and whether it still belongs there.

A node that comes up on another address says so to its leader, which has the configuration follow.
Whoever was removed while it was away finds nobody who votes for it or sends it entries; those whom
it asks know why, and say so. Then it is quiet for ever: ids are not used twice.
"""

from __future__ import annotations

from raft_agent.consensus.state import RaftState
from raft_agent.consensus.types import Announce, Member, Removed, Role


class Presence:
    """`address`: where this node can be dialled now."""

    def __init__(self, state: RaftState, address: str) -> None:
        self._state = state
        self._address = address
        self._noted = False

    def peer_connected(self, peer: int) -> None:
        """Who asks nobody for a vote is told only so that it was removed."""
        if self._has_moved() or not self._state.can_stand:
            self._announce(peer)

    def heard_leader(self, leader: int) -> None:
        if self._has_moved():
            self._announce(leader)

    def nobody_is_heard(self) -> None:
        """No leader for an election timeout: there may be one that dials another address, because
        this node moved while nobody led, or a wrong one was noted. And whom this node asks for
        votes may have been removed, and not know that this node was as well, so all are asked."""
        state = self._state
        configuration = state.configuration
        if configuration is None:
            return
        for member in configuration.members:
            if member.id != state.member_id:
                self._announce(member.id)

    def _has_moved(self) -> bool:
        own = self._own_entry()
        return own is not None and own.address != self._address

    def _own_entry(self) -> Member | None:
        return self._state.membership.member(self._state.member_id)

    def _announce(self, peer: int) -> None:
        state = self._state
        if state.role is not Role.LEADER and not state.was_removed:
            message = Announce(state.current_term, state.next_request_id(), self._address)
            state.send(peer, message)

    def own_move(self) -> str:
        """A leader's own address, when the configuration has another one; else ""."""
        return self._address if self._has_moved() else ""

    def removed(self, _sender: int, _message: Removed) -> None:
        self._state.told_removed = True

    def pump(self) -> None:
        """Note once that this node is no member any more."""
        state = self._state
        if not self._noted and not state.superseded and state.was_removed:
            self._noted = True
            state.note("removed", index=state.commit_index)
