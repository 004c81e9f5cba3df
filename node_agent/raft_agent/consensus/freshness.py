"""How current a node is: up to which moment of its own clock it has applied all that was
acknowledged anywhere.

A follower can't tell that from when it reads its leader's words: it may have been stopped, and read
what lay in its sockets for long. So each of its replies bears its own clock's time. The leader
waits until a round of heartbeats that began after such a reply has proved that it still led, as
for a linearizable read (§6.4 of the thesis), and then sends the stamp back, with the commit index
that the round began with: nothing behind that had been acknowledged at the moment of the stamp.
"""

from __future__ import annotations

from raft_agent.consensus.leadership import Leadership
from raft_agent.consensus.state import RaftState
from raft_agent.consensus.types import Heartbeat, HeartbeatReply


class Freshness:
    """Rounds of a leader, and what a follower makes of them."""

    def __init__(self, state: RaftState) -> None:
        self._state = state

    # --- leader

    def begin_round(self, leadership: Leadership, request_id: int) -> None:
        """Heartbeats with this id leave now. A round that no quorum has answered yet goes on:
        the replies to these count for it as well."""
        state = self._state
        currency = leadership.currency
        if currency.request_id or state.commit_index < leadership.first_index:
            return
        currency.request_id = request_id
        currency.index = state.commit_index
        currency.began_us = state.now_us
        currency.stamps = {
            peer: progress.stamp_us for peer, progress in leadership.progress.items()
        }
        currency.acks = {state.member_id}
        self._close(leadership)

    def reply(self, leadership: Leadership, sender: int, message: HeartbeatReply) -> None:
        """A reply in the session of now."""
        currency = leadership.currency
        leadership.progress[sender].stamp_us = message.stamp_us
        if currency.request_id and message.request_id >= currency.request_id:
            currency.acks.add(sender)
            self._close(leadership)

    def _close(self, leadership: Leadership) -> None:
        state = self._state
        currency = leadership.currency
        if not state.has_quorum(currency.acks):
            return
        currency.request_id = 0
        state.current_at(currency.began_us, currency.index)
        for peer, stamp_us in currency.stamps.items():
            progress = leadership.progress.get(peer)
            if progress is not None and stamp_us:
                progress.as_of = (stamp_us, currency.index)

    def forget_stamp(self, peer: int) -> None:
        """Its machine may have restarted, and its clock with it."""
        leadership = self._state.leadership
        if leadership is not None:
            leadership.currency.stamps.pop(peer, None)

    # --- follower

    def heard(self, message: Heartbeat) -> None:
        """The leader has sent a stamp of this node back."""
        state = self._state
        if state.began_us <= message.as_of_us <= state.now_us:
            state.current_at(message.as_of_us, message.as_of_index)
