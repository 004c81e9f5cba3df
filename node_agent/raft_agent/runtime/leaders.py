"""What a node asks of its leader, or as one: to serve a request, to hand over."""

from __future__ import annotations

from collections.abc import Callable

from raft_agent.api import protocol
from raft_agent.api.host import Failure
from raft_agent.api.protocol import ErrorCode
from raft_agent.consensus.node import Node
from raft_agent.consensus.types import Event, TransferLeadership
from raft_agent.runtime.refusals import NO_LEADER_HINT, no_such_member, why_not_leading
from raft_agent.transport.transport import Transport


def forward_to_leader(
    node: Node,
    transport: Transport,
    request: protocol.Request,
    done: Callable[[bytes | Failure], None],
) -> None:
    """Have the leader serve `request`; the answer is the encoded Reply of it."""
    why = why_not_leading(node)
    if why.code is not ErrorCode.NOT_LEADER:
        done(why)
        return

    def on_reply(body: bytes | None, sent: bool) -> None:
        if body is not None:
            done(body)
        elif sent:
            what = "The leader did not answer; what it was asked may still happen"
            hint = "See which members are alive: raftctl health"
            done(Failure(ErrorCode.UNKNOWN_OUTCOME, what, hint))
        else:
            done(Failure(ErrorCode.NO_LEADER, "The leader can't be reached", NO_LEADER_HINT))

    transport.forward(node.leader_id, protocol.ENCODER.encode(request), on_reply)


class Transfers:
    """Hand-overs that somebody waits for."""

    def __init__(
        self, node: Node, feed: Callable[[Event], None], next_tag: Callable[[], int]
    ) -> None:
        self._node = node
        self._feed = feed
        self._next_tag = next_tag
        self._waiting: dict[int, Callable[[str | Failure], None]] = {}

    def begin(self, target: str, done: Callable[[str | Failure], None]) -> None:
        """Hand over to the member `target` ("": any)."""
        configuration = self._node.configuration
        ids = {m.name: m.id for m in configuration.members} if configuration else {}
        if target and target not in ids:
            done(no_such_member(configuration, target))
            return
        tag = self._next_tag()
        self._waiting[tag] = done
        self._feed(TransferLeadership(tag, ids.get(target, 0)))

    def answered(self, tag: int, outcome: str | Failure) -> None:
        """The core has answered: the new leader's name, or why there is none."""
        self._waiting.pop(tag)(outcome)
