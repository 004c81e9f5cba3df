"""Who has changed something about the cluster itself, and what came of it.

Everything that takes the role admin is told to the host once it is answered.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from raft_agent.api import protocol
from raft_agent.api.caller import Caller
from raft_agent.api.protocol import Error, ErrorCode
from raft_agent.api.rights import LEAST_ROLE
from raft_agent.tls.identity import Role

# Of no use to people, or not for their eyes.
_LEFT_OUT = frozenset({"id", "forward", "once", "nonce", "proof"})
_PLAIN = re.compile(r"[A-Za-z0-9._:/@\[\]-]+")
# Asked every second by a node that is not let in.
_ONLY_WHEN_DONE = (protocol.JoinSelf,)

Tell = Callable[[str, str, str], None]
"""(who, what, what came of it)."""


def is_audited(kind: type[protocol.Request]) -> bool:
    """Whether requests of this kind are told to the host."""
    return LEAST_ROLE.get(kind, Role.ADMIN) is Role.ADMIN


def described(request: protocol.Request) -> str:
    """The request in one line: its word, and the fields that differ from their defaults. A text
    that is no plain word stands in quotes, so that it can't pass for the rest of the line."""
    words = [str(type(request).__struct_config__.tag)]
    for field in msgspec.structs.fields(request):
        value = getattr(request, field.name)
        if field.name not in _LEFT_OUT and value != field.default:
            shown = str(value).lower() if isinstance(value, bool) else str(value)
            plain = shown if _PLAIN.fullmatch(shown) else ascii(shown)
            words.append(f"{field.name}={plain}")
    return " ".join(words)


class AuditedCaller(Caller):
    """Stands before `caller` for one request, and tells what came of it."""

    def __init__(self, caller: Caller, request: protocol.Request, tell: Tell) -> None:
        self._caller = caller
        self._request = request
        self._tell = tell
        self.may_forward = caller.may_forward
        self.is_json = caller.is_json
        self.principal = caller.principal
        self.streams = caller.streams

    # The limits are those of the connection.

    @property
    def in_flight(self) -> int:
        return self._caller.in_flight

    @in_flight.setter
    def in_flight(self, count: int) -> None:
        self._caller.in_flight = count

    @property
    def is_gone(self) -> bool:
        return self._caller.is_gone

    @property
    def has_left(self) -> bool:
        return self._caller.has_left

    def reply(self, request_id: int, result: object, data_bytes: int = 0) -> None:
        self.tell("done")
        self._caller.reply(request_id, result, data_bytes)

    def fail(self, request_id: int, error: Error) -> None:
        if error.code is ErrorCode.PERMISSION_DENIED:
            self.tell(error.code)
        elif not isinstance(self._request, _ONLY_WHEN_DONE):
            self.tell(f"{error.code}: {error.error}")
        self._caller.fail(request_id, error)

    def tell(self, outcome: str) -> None:
        """Tell the host what came of the request."""
        self._tell(self.principal.who, described(self._request), outcome)

    def push(self, stream_id: int, item: object, data_bytes: int) -> None:
        self._caller.push(stream_id, item, data_bytes)

    def push_end(self, stream_id: int, error: Error) -> None:
        self._caller.push_end(stream_id, error)

    def forget_pushes(self, stream_id: int) -> None:
        self._caller.forget_pushes(stream_id)

    def unsent_bytes(self) -> int:
        return self._caller.unsent_bytes()
