"""A new node that asks to be added by itself ([cluster] join), and how it proves that it may.

Whoever asks shows that it knows the cluster's token without sending it: an HMAC (RFC 2104) over a
challenge that is good once, and over the name and address that are asked for. Where members have no
token and speak TLS, the certificate with that name is proof enough.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Callable, Sequence

import msgspec

from raft_agent.api import protocol
from raft_agent.api.host import Failure
from raft_agent.api.protocol import ErrorCode
from raft_agent.api.terms import UNREADABLE
from raft_agent.config import Config
from raft_agent.consensus.node import Node
from raft_agent.consensus.types import Role
from raft_agent.runtime.memberships import membership_result
from raft_agent.transport.transport import PeerTarget, Transport

_PURPOSE = b"raft-ebpf join 1"
_NONCE_BYTES = 16
_CHALLENGE_S = 30.0
# Strangers may ask for any number of them.
_MAX_CHALLENGES = 1024
_ASK_EVERY_S = 1.0
# The leader dials the new node and waits for other changes meanwhile. Who hangs never answers.
_PATIENCE_S = 15.0

_REPLY = msgspec.msgpack.Decoder(protocol.Reply)
_CHALLENGE = msgspec.msgpack.Decoder(protocol.ChallengeResult)


def proof(token: str, nonce: bytes, name: str, address: str) -> bytes:
    """What shows that one knows `token`: 32 bytes."""
    fields = (_PURPOSE, nonce, name.encode(), address.encode())
    text = b"".join(len(field).to_bytes(4, "little") + field for field in fields)
    return hmac.digest(token.encode(), text, hashlib.sha256)


class Doorkeeper:
    """A member's side. `token` None: only who has a certificate is let in this way."""

    def __init__(self, token: str | None, clock: Callable[[], float]) -> None:
        self._token = token
        self._clock = clock
        self._challenges: dict[bytes, float] = {}

    def challenge(self) -> bytes:
        """A nonce that is good for one question, soon."""
        now = self._clock()
        while self._challenges and (
            len(self._challenges) >= _MAX_CHALLENGES or next(iter(self._challenges.values())) < now
        ):
            del self._challenges[next(iter(self._challenges))]
        nonce = secrets.token_bytes(_NONCE_BYTES)
        self._challenges[nonce] = now + _CHALLENGE_S
        return nonce

    def problem(self, request: protocol.JoinSelf, certified: str = "") -> Failure | None:
        """Why whoever asks is not let in; None when it knows the token, or, where there is none,
        has shown the certificate of the node that it wants to be: `certified`."""
        if self._token is None:
            if certified and certified == request.name:
                return None
            lacks = "neither [cluster] token nor [tls]"
            if certified:
                lacks = f"no [cluster] token, and the certificate is {certified}'s"
            return Failure(
                ErrorCode.REFUSED,
                f"This member has {lacks}, so it does not add {request.name} because it asks",
                f"At a member: raftctl join {request.name} {request.address}",
            )
        good_until = self._challenges.pop(request.nonce, 0.0)
        expected = proof(self._token, request.nonce, request.name, request.address)
        if good_until < self._clock() or not hmac.compare_digest(expected, request.proof):
            return Failure(
                ErrorCode.REFUSED,
                f"{request.name} could not prove that it knows the cluster's token",
                "Give all members and the new node the same [cluster] token",
            )
        return None


class Applicant:
    """The new node's side: asks one address after the other until it is a member.

    `token` None: its certificate has to be enough. `is_fresh`: whether it still has to ask.
    `tell(kind, **facts)` puts an event into the log.
    """

    def __init__(
        self,
        *,
        token: str | None,
        name: str,
        address: str,
        targets: Sequence[str],
        transport: Transport,
        is_fresh: Callable[[], bool],
        tell: Callable[..., None],
    ) -> None:
        self._token = token
        self._name = name
        self._address = address
        self._targets = targets
        self._transport = transport
        self._is_fresh = is_fresh
        self._tell = tell
        self._told: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Dial the members and begin to ask; the transport has started."""
        self._transport.set_peers([PeerTarget("", address, 0) for address in self._targets])
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while self._is_fresh():
            for address in self._targets:
                peer = self._transport.peer_at(address)
                if peer and self._is_fresh():
                    await self._ask(peer, address)
            await asyncio.sleep(_ASK_EVERY_S)

    async def _ask(self, peer: int, address: str) -> None:
        answer = await self._forward(peer, protocol.JoinChallenge(1))
        if answer is None:
            return
        try:
            reply = _REPLY.decode(answer)
            if reply.error is not None:
                self._say("join_refused", reason=reply.error.error)
                return
            nonce = _CHALLENGE.decode(reply.result).nonce
        except UNREADABLE as error:
            self._say("join_refused", reason=f"the answer of {address} can't be read: {error}")
            return
        self._say("join_asked", address=address)
        shown = b""
        if self._token is not None:
            shown = proof(self._token, nonce, self._name, self._address)
        request = protocol.JoinSelf(1, self._name, self._address, nonce, shown)
        answer = await self._forward(peer, request)
        result = membership_result(answer) if answer is not None else None
        if isinstance(result, Failure):
            self._say("join_refused", reason=result.error)

    def _say(self, kind: str, **facts: str) -> None:
        """Once for each thing to say: it is asked again every second."""
        text = f"{kind} {facts}"
        if text not in self._told:
            self._told.add(text)
            self._tell(kind, **facts)

    async def _forward(self, peer: int, request: protocol.Request) -> bytes | None:
        """The encoded Reply; None when none came in time."""
        answered: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

        def on_reply(body: bytes | None, _sent: bool) -> None:
            if not answered.done():
                answered.set_result(body)

        self._transport.forward(peer, protocol.ENCODER.encode(request), on_reply)
        await asyncio.wait([answered], timeout=_PATIENCE_S)
        return answered.result() if answered.done() else None


def applicant_for(
    config: Config,
    node: Node,
    transport: Transport,
    address: str,
    *,
    is_certified: bool,
    tell: Callable[..., None],
) -> Applicant | None:
    """Who asks for this node to be added; None when somebody else has to. `is_certified`: it can
    show a certificate."""
    cluster = config.cluster
    has_proof = cluster.token is not None or is_certified
    if node.role is not Role.FRESH or not cluster.join or not has_proof:
        return None
    return Applicant(
        token=cluster.token,
        name=config.server.node_id,
        address=address,
        targets=cluster.join,
        transport=transport,
        is_fresh=lambda: node.role is Role.FRESH,
        tell=tell,
    )
