"""Few bytes that stand for many objects: a frame may cost no more than some times its size."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import msgspec
import pytest

from raft_agent.api import protocol
from raft_agent.api.answers import (
    AnswerUnreadable,
    OutcomeUnknown,
    item_of,
    read_replies,
    result_of,
)
from raft_agent.api.protocol import Put, Reply, Status, WatchKeys
from raft_agent.api.salvage import UnreadableError, read_requests

MANY = 2_000_000


def peak_bytes(call: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        call()
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return peak


def refused(body: bytes, *, is_json: bool = False) -> str:
    with pytest.raises(UnreadableError) as caught:
        read_requests(body, is_json)
    return str(caught.value)


MANY_ITEMS = b"\xdd" + MANY.to_bytes(4, "big") + b"\x01" * MANY
MANY_IN_JSON = b"[" + b"1," * MANY + b"1]"
MANY_FIELDS = b"\x91\xdd" + MANY.to_bytes(4, "big") + b"\xa3put\x07" + b"\x90" * (MANY - 2)
MANY_FIELDS_IN_JSON = b'[["put",7,' + b"[]," * (MANY // 4) + b"[]]]"


@pytest.mark.parametrize(
    ("body", "is_json"),
    [
        (MANY_ITEMS, False),
        (MANY_IN_JSON, True),
        (b"\xdd\xff\xff\xff\xff", False),
        (b"\xdc\xff\xff\x01", False),
    ],
    ids=["array", "json", "array of nothing", "array of 16 bits"],
)
def test_more_requests_than_a_frame_may_hold_are_never_made(body: bytes, is_json: bool) -> None:
    assert peak_bytes(lambda: refused(body, is_json=is_json)) < 2 * len(body) + 100_000
    assert "16384 is the limit" in refused(body, is_json=is_json)


@pytest.mark.parametrize(
    ("body", "is_json"), [(MANY_FIELDS, False), (MANY_FIELDS_IN_JSON, True)], ids=["array", "json"]
)
def test_of_a_request_that_is_refused_only_its_beginning_is_looked_at(
    body: bytes, is_json: bool
) -> None:
    found: list[object] = []
    assert peak_bytes(lambda: found.extend(read_requests(body, is_json))) < 3 * len(body)
    ((request_id, error),) = found  # type: ignore[misc]
    assert request_id == 7
    assert error.code is protocol.ErrorCode.BAD_REQUEST


def test_commas_in_texts_are_no_requests() -> None:
    text = "," * (2 << 20)
    body = protocol.JSON_ENCODER.encode([protocol.Send(1, text[: 1 << 20])] * 2)
    assert len(read_requests(body, True)) == 2


@pytest.mark.parametrize("start", [[["put"] * 2_000, 7], ["x" * 5_000, 7]])
def test_an_op_that_is_none_is_answered_under_its_id(start: list[object]) -> None:
    ((request_id, error),) = read_requests(msgspec.msgpack.encode([start]), False)
    assert (request_id, error.code) == (7, protocol.ErrorCode.BAD_REQUEST)  # type: ignore[union-attr]


def test_an_agent_that_lies_about_the_number_of_replies_costs_a_client_nothing() -> None:
    body = b"\xdd" + MANY.to_bytes(4, "big") + b"\x93\x01\xc0\xc0" * 10

    def read() -> None:
        with pytest.raises(ValueError, match="array"):
            read_replies(body)

    assert peak_bytes(read) < 1 << 20


def test_replies_of_a_great_depth_are_no_replies() -> None:
    with pytest.raises(ValueError, match="recursion"):
        read_replies(b"\x91\x98\x01\xc0\xc0" + b"\x91" * 9_000)


@pytest.mark.parametrize("result", [b"\xc0", b"\x80", b"\x91" * 9_000 + b"\xc0", b"\xa1\xff"])
def test_a_result_that_can_not_be_read_is_an_error_of_the_clients_own(result: bytes) -> None:
    """A question has had no answer then, and the outcome of a write is not known."""
    reply = Reply(1, None, msgspec.Raw(result))
    with pytest.raises(AnswerUnreadable, match="can't be read"):
        result_of(Status(1), reply)
    with pytest.raises(AnswerUnreadable, match="can't be read"):
        item_of(WatchKeys(1, "k"), reply)
    with pytest.raises(OutcomeUnknown, match="can't be read"):
        result_of(Put(1, "k", b"v"), reply)
