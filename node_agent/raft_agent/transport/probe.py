"""Asking who answers at an address, without becoming its peer."""

from __future__ import annotations

import asyncio

from raft_agent import wire
from raft_agent.transport.connection import Connection, Local
from raft_agent.transport.dialling import dial, in_words
from raft_agent.transport.handshake import (
    Hello,
    Purpose,
    Refused,
    check_common_version,
    decode_hello,
    encode_hello,
    shown,
)
from raft_agent.wire import FrameError, FrameType


class ProbeFailed(Exception):  # noqa: N818  (an answer, not a fault of this program)
    """Nobody of use answers at the address; the text says so to people."""


async def probe(local: Local, address: str, timeout_s: float) -> Hello:
    """Who answers at `address`; a member of another cluster, or this node itself, too.

    Raises ProbeFailed.
    """
    deadline = local.loop.time() + timeout_s
    try:
        connection = await dial(local, address, "", lambda: _Probe(local, deadline), timeout_s)
    except (OSError, ValueError) as error:
        raise ProbeFailed(f"cannot connect to {address}: {in_words(error)}") from None
    try:
        answer = await connection.answer
    finally:
        connection.abort()
    if isinstance(answer, str):
        raise ProbeFailed(f"{address}: {answer}")
    return answer


class _Probe(Connection):
    def __init__(self, local: Local, deadline: float) -> None:
        super().__init__(local, FrameType.HELLO_REPLY)
        self._deadline = deadline
        self.answer: asyncio.Future[Hello | str] = local.loop.create_future()
        """The hello that came, or in words why none did."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.handshake_s = max(self._deadline - self.local.loop.time(), 0.0)
        super().connection_made(transport)
        hello = self.local.hello(purpose=Purpose.PROBE)
        self.send(encode_hello(FrameType.HELLO, hello), bulk=False)

    def frame_received(self, frame: wire.Frame) -> None:
        try:
            hello = decode_hello(frame)
            if hello.refusal:
                self._give(f"{hello.name!r} refuses: {shown(hello.refusal)}")
                return
            check_common_version(self.local.hello(), hello)
            self.check_certificate(hello)
        except FrameError as error:
            self.reject(error.reason, str(error))
        except Refused as error:
            self._give(str(error))
        else:
            self._give(hello)

    def lost(self, exc: Exception | None) -> None:
        why = f" ({exc})" if exc else ""
        self._give(f"it closed the connection before it had answered{why}")

    def _record(self, reason: str, text: str) -> None:
        """Whoever asked is told; neither counted nor logged."""
        if reason == "handshake_timeout":
            self._give("it takes connections, but does not answer")
        elif reason.startswith("tls_"):
            self._give(text)
        else:
            self._give(f"no raft-agent answers there: {text}")

    def _give(self, answer: Hello | str) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)
