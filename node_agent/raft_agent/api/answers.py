"""What clients make of a reply: the request's result, or an exception that says what happened."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from raft_agent.api import protocol
from raft_agent.api.protocol import ErrorCode
from raft_agent.api.terms import UNREADABLE


class RaftClientError(Exception):
    """What all clients raise. `happened`: "no" when what was asked has changed nothing and will
    not, "unknown" when it may have happened or may still happen.
    """

    happened: Literal["no", "unknown"] = "no"


class AgentNotReachable(RaftClientError):  # noqa: N818
    """There is no agent, or it does not answer; what was asked has changed nothing."""


class AnswerUnreadable(AgentNotReachable):
    """What answered is no agent of a version that goes with this client."""


class OutcomeUnknown(RaftClientError):  # noqa: N818
    """A write was sent, but no answer came: it may have happened, or may still happen. `hint`: what
    the agent says to do next, or "".
    """

    happened = "unknown"

    def __init__(self, error: str, hint: str = "") -> None:
        super().__init__(error)
        self.hint = hint


class RequestFailed(RaftClientError):  # noqa: N818
    """The agent refused, and nothing was changed. `error` is a sentence for people, `hint` what to
    do next or "", `leader` the leader's name when known or ""; `time_ms` the log's time, when a
    deadline did not fit it.
    """

    def __init__(
        self, error: str, code: ErrorCode, hint: str = "", leader: str = "", time_ms: int = 0
    ) -> None:
        super().__init__(error)
        self.error = error
        self.code = code
        self.hint = hint
        self.leader = leader
        self.time_ms = time_ms


class HistoryCompacted(RequestFailed):
    """A watch wants changes of keys that are not kept any more; `oldest` is the first revision that
    is. Read the keys anew, and watch from the revision behind the store's then.
    """

    def __init__(self, error: str, hint: str, oldest: int) -> None:
        super().__init__(error, ErrorCode.COMPACTED, hint)
        self.oldest = oldest


_decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {}


def is_stream(request: protocol.Request) -> bool:
    """Whether items follow the reply."""
    if isinstance(request, protocol.Events):
        return request.follow
    return isinstance(
        request,
        protocol.WatchMessages | protocol.WatchKeys | protocol.SnapshotSave | protocol.ExportWatch,
    )


def result_of(request: protocol.Request, reply: protocol.Reply) -> Any:
    """The result of `request`, as protocol.RESULT_TYPES says. Raises RequestFailed or
    OutcomeUnknown for an error, and for a result that can't be read
    OutcomeUnknown of a write, else AnswerUnreadable."""
    kind = protocol.StreamStarted if is_stream(request) else protocol.RESULT_TYPES[type(request)]
    return _decode(request, reply, kind)


def item_of(request: protocol.Request, reply: protocol.Reply) -> Any:
    """The next item of the stream of `request`, as protocol.ITEM_TYPES says. Raises RequestFailed
    when the agent ended the stream."""
    return _decode(request, reply, protocol.ITEM_TYPES[type(request)])


def _decode(request: protocol.Request, reply: protocol.Reply, kind: type | None) -> Any:
    error = reply.error
    if error is not None:
        if error.code is ErrorCode.UNKNOWN_OUTCOME:
            raise OutcomeUnknown(error.error, error.hint)
        if error.code is ErrorCode.COMPACTED:
            raise HistoryCompacted(error.error, error.hint, error.revision)
        raise RequestFailed(error.error, error.code, error.hint, error.leader, error.time_ms)
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind)
    try:
        return decoder.decode(reply.result)
    except UNREADABLE as error:
        reason = f"the agent's answer can't be read: {error}"
        if isinstance(request, protocol.WRITES):
            raise OutcomeUnknown(reason) from error
        raise AnswerUnreadable(reason) from error


def read_replies(body: bytes) -> list[protocol.Reply]:
    """The replies, or items of streams, that a frame's body holds. Raises ValueError when it holds
    none that can be read."""
    try:
        replies: list[protocol.Reply] = protocol.REPLIES_DECODER.decode(body)
        return replies
    except (RecursionError, OverflowError) as error:
        raise ValueError(str(error)) from error


def no_answer(request: protocol.Request, reason: str) -> Exception:
    """What to raise for a request that was sent and whose answer will not come."""
    if isinstance(request, protocol.WRITES):
        return OutcomeUnknown(reason)
    return AgentNotReachable(reason)
