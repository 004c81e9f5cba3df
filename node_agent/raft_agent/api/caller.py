"""Who asked: what the handlers of requests and the streams answer to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, TypeAlias

from raft_agent.api import protocol
from raft_agent.api.host import Failure

if TYPE_CHECKING:
    from raft_agent.api.rights import Principal
    from raft_agent.api.streams import Stream

# What a reply costs besides the data in it; only for limits, so a guess is enough.
REPLY_BYTES = 96

# (the request's id, an error, a result): one of the two is None.
Answer: TypeAlias = tuple[int, protocol.Error | None, object]


class Caller(ABC):
    """`in_flight` counts requests that wait for an answer. `streams` stand until cancelled.
    `may_forward`: whether requests may go on to the leader. `is_json`: how results are encoded.
    `principal`: who it is.
    """

    may_forward = True
    is_json = False
    in_flight: int
    streams: dict[int, Stream]

    def __init__(self, principal: Principal) -> None:
        self.principal = principal
        self.in_flight = 0
        self.streams = {}

    @property
    def is_gone(self) -> bool:
        """Nothing reaches it any more."""
        return False

    @property
    def has_left(self) -> bool:
        """It is gone or has closed its side, which ends its streams."""
        return False

    @abstractmethod
    def reply(self, request_id: int, result: object, data_bytes: int = 0) -> None:
        """Answer with `result`, which encodes to what the protocol says; `data_bytes` is about how
        much data of users it holds."""

    def answer(self, answers: list[Answer]) -> None:
        """Many answers at once, none with data of users."""
        for request_id, error, result in answers:
            if error is None:
                self.reply(request_id, result)
            else:
                self.fail(request_id, error)

    @abstractmethod
    def fail(self, request_id: int, error: protocol.Error) -> None:
        """Answer that it did not work."""

    @abstractmethod
    def push(self, stream_id: int, item: object, data_bytes: int) -> None:
        """The next item of a stream."""

    @abstractmethod
    def push_end(self, stream_id: int, error: protocol.Error) -> None:
        """The last word of a stream that the server ends."""

    @abstractmethod
    def forget_pushes(self, stream_id: int) -> None:
        """Drop what is queued of a stream that its client cancelled."""

    @abstractmethod
    def unsent_bytes(self) -> int:
        """About how much waits for the client to read it."""


def error_of(failure: Failure) -> protocol.Error:
    """The host's failure in the protocol's words."""
    return protocol.Error(failure.error, failure.code, failure.hint, failure.leader)
