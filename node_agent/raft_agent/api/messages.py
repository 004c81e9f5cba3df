"""Requests about the message log. Use them as members of `protocol`."""

from __future__ import annotations

from raft_agent.api.sessions import Once
from raft_agent.api.terms import BaseRequest, Limit, LogIndex, Name


class Send(BaseRequest, frozen=True, tag="send"):
    """Append a text to the message log. `forward`: a follower passes it on to the leader.
    `node` is set by agents when they forward and empty from clients.
    """

    text: str
    forward: bool = False
    node: Name = ""
    once: Once = None


class Messages(BaseRequest, frozen=True, tag="messages"):
    """The newest `limit` messages, newest first, from this node's applied state."""

    limit: Limit = 10


class WatchMessages(BaseRequest, frozen=True, tag="watch_messages"):
    """Messages as they are applied here; first those after log index `after_index` (-1: none of the
    past)."""

    after_index: LogIndex = -1
