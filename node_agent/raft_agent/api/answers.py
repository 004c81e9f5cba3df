"""What clients make of a reply: the request's result, or an exception that says what happened."""

from __future__ import annotations

from typing import Any

import msgspec

from raft_agent.api import protocol
from raft_agent.api.protocol import ErrorCode


class AgentNotReachable(Exception):  # noqa: N818
    """There is no agent, or it does not answer; what was asked has changed nothing."""


class OutcomeUnknown(Exception):  # noqa: N818
    """A write was sent, but no answer came: it may have happened, or may still happen."""


class RequestFailed(Exception):  # noqa: N818
    """The agent refused, and nothing was changed. `error` is a sentence for people, `hint` what to
    do next or "", `leader` the leader's name when known or "".
    """

    def __init__(self, error: str, code: ErrorCode, hint: str = "", leader: str = "") -> None:
        super().__init__(error)
        self.error = error
        self.code = code
        self.hint = hint
        self.leader = leader


_decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {}


def is_stream(request: protocol.Request) -> bool:
    """Whether items follow the reply."""
    if isinstance(request, protocol.Events):
        return request.follow
    return isinstance(request, protocol.WatchMessages | protocol.WatchKeys)


def result_of(request: protocol.Request, reply: protocol.Reply) -> Any:
    """The result of `request`, as protocol.RESULT_TYPES says. Raises RequestFailed or
    OutcomeUnknown for an error."""
    kind = protocol.StreamStarted if is_stream(request) else protocol.RESULT_TYPES[type(request)]
    return _decode(reply, kind)


def item_of(request: protocol.Request, reply: protocol.Reply) -> Any:
    """The next item of the stream of `request`, as protocol.ITEM_TYPES says. Raises RequestFailed
    when the agent ended the stream."""
    return _decode(reply, protocol.ITEM_TYPES[type(request)])


def _decode(reply: protocol.Reply, kind: type | None) -> Any:
    error = reply.error
    if error is not None:
        if error.code is ErrorCode.UNKNOWN_OUTCOME:
            raise OutcomeUnknown(error.error)
        raise RequestFailed(error.error, error.code, error.hint, error.leader)
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind)
    return decoder.decode(reply.result)


def no_answer(request: protocol.Request, reason: str) -> Exception:
    """What to raise for a request that was sent and whose answer will not come."""
    if isinstance(request, protocol.WRITES):
        return OutcomeUnknown(reason)
    return AgentNotReachable(reason)
