"""What a node says that is to pass a request on to its leader."""

from __future__ import annotations

from collections.abc import Callable

from raft_agent.api import protocol
from raft_agent.api.host import Failure
from raft_agent.api.protocol import ErrorCode
from raft_agent.consensus.types import Heartbeat, Removed, StorageFailed
from raft_agent.runtime.leaders import forward_to_leader
from raft_agent.runtime.refusals import why_not_leading
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
    server.receive(2, Heartbeat(1, 1, 1, 0))
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
    failed = follower()
    failed.step(StorageFailed("the disk is gone"))
    assert told(failed, wire) is ErrorCode.STORAGE_FAILED
    assert wire.sent == []


def test_why_a_node_does_not_lead_is_said_in_words_that_help() -> None:
    known = why_not_leading(follower().node, "node-02")
    assert (known.code, known.leader) == (ErrorCode.NOT_LEADER, "node-02")
    assert known.hint == "Send from leader node: node-02"
    deposed = follower()
    deposed.node.state.leader_id = 1
    assert why_not_leading(deposed.node, "node-01").code is ErrorCode.NO_LEADER
    removed = follower()
    removed.receive(2, Removed(1, 1))
    why = why_not_leading(removed.node, "node-02")
    assert (why.code, why.leader) == (ErrorCode.REMOVED, "")
    assert "empty its data directory" in why.hint
    failed = follower()
    failed.step(StorageFailed("the disk is gone"))
    assert why_not_leading(failed.node).error == "the disk is gone"
