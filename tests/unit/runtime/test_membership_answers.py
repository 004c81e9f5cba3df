"""What another member answered about a change of the members is passed on."""

from __future__ import annotations

import msgspec
import pytest

from raft_agent.api import protocol
from raft_agent.api.host import Failure
from raft_agent.api.protocol import ErrorCode
from raft_agent.runtime.memberships import membership_result


def test_a_leaders_answer_is_passed_on_as_it_is() -> None:
    result = protocol.MembershipResult(7, ["a warning"], [], "done", True)
    raw = msgspec.Raw(protocol.ENCODER.encode(result))
    assert membership_result(protocol.ENCODER.encode(protocol.Reply(1, None, raw))) == result
    error = protocol.Error("It does not go", ErrorCode.REFUSED, "Do this", "node-02")
    refused = membership_result(protocol.ENCODER.encode(protocol.Reply(1, error)))
    assert refused == Failure(ErrorCode.REFUSED, "It does not go", "Do this", "node-02")


@pytest.mark.parametrize("reply", [b"", b"\xc1", protocol.ENCODER.encode(protocol.Reply(1, None))])
def test_an_answer_that_can_not_be_read_leaves_the_outcome_open(reply: bytes) -> None:
    answer = membership_result(reply)
    assert isinstance(answer, Failure)
    assert answer.code is ErrorCode.UNKNOWN_OUTCOME


@pytest.mark.parametrize(
    "answer",
    [b"", b"\x93\x01\xc0\xa1\xff", b"\x94\x01\xc0\xc0" + b"\x91" * 9_000, b"\x93\x01\xc0\x01"],
)
def test_a_leaders_answer_that_can_not_be_read_leaves_the_outcome_open(answer: bytes) -> None:
    failure = membership_result(answer)
    assert isinstance(failure, Failure)
    assert failure.code is ErrorCode.UNKNOWN_OUTCOME
    assert "can't be read" in failure.error
