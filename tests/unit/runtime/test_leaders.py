"""What a node says that is to pass a request on to its leader."""

from __future__ import annotations

from collections.abc import Callable

from raft_agent.api import protocol
from raft_agent.api.host import Failure
from raft_agent.api.protocol import ErrorCode
from raft_agent.consensus.types import Heartbeat, Removed
from raft_agent.runtime.leaders import forward_to_leader
from tests.unit.consensus.server import Server

REQUEST = protocol.Leave(1, "node-03")


class Wire:
    """`answer`: what comes back, and whether the request had left."""

    answer: tuple[bytes | None, bool] = (b"reply", True)

    def __init__(self) -> None:
        self.sent: list[tuple[int, protocol.Request]] = []

    def forward(
        self, peer: int, body: bytes, on_reply: Callable[[bytes | None, bool], None]
    ) -> None:
        self.sent.append((peer, protocol.REQUEST_DECODER.decode(body)))
        on_reply(*self.answer)


def told(server: Server, wire: Wire) -> bytes | ErrorCode:
    answers: list[bytes | Failure] = []
    forward_to_leader(server.node, wire, REQUEST, answers.append)  # type: ignore[arg-type]
    (answer,) = answers
    return answer.code if isinstance(answer, Failure) else answer


def follower() -> Server:
    """Of server 2."""
    server = Server(1)
    server.receive(2, Heartbeat(1, 1, 1, 0, 0))
    assert server.node.leader_id == 2
    return server


def test_the_leaders_answer_comes_back_as_it_is() -> None:
    wire = Wire()
    assert told(follower(), wire) == b"reply"
    assert wire.sent == [(2, REQUEST)]


def test_a_request_that_may_have_arrived_has_an_unknown_outcome() -> None:
    wire = Wire()
    wire.answer = (None, True)
    assert told(follower(), wire) is ErrorCode.UNKNOWN_OUTCOME
    wire.answer = (None, False)
    assert told(follower(), wire) is ErrorCode.NO_LEADER


def test_who_has_no_leader_passes_nothing_on() -> None:
    wire = Wire()
    assert told(Server(1), wire) is ErrorCode.NO_LEADER
    assert told(Server(1, log=[]), wire) is ErrorCode.NOT_IN_CLUSTER
    removed = follower()
    removed.receive(2, Removed(1, 1))
    assert told(removed, wire) is ErrorCode.REMOVED
    assert wire.sent == []
