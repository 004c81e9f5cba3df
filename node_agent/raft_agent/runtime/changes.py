"""Who carries out a change of the members: this node while it leads, else the leader; and asked
again when the lead moves meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from raft_agent.api import protocol
from raft_agent.api.host import Failure, Host
from raft_agent.api.protocol import ErrorCode
from raft_agent.consensus.types import RefusalReason
from raft_agent.runtime.joining import Doorkeeper
from raft_agent.runtime.memberships import MembershipRequest, Memberships, membership_result
from raft_agent.runtime.refusals import failure_of

Request: TypeAlias = MembershipRequest | protocol.JoinSelf
Done: TypeAlias = Callable[[protocol.MembershipResult | Failure], None]

_RETRY_S = 0.05
# Less than raftctl waits by itself: who gives up first could not say that nothing has changed.
_PATIENCE_S = 3.0
# With these nothing has happened yet, and a moment later it may.
_PASSING = frozenset({ErrorCode.NOT_LEADER, ErrorCode.NO_LEADER})


class _Asked(msgspec.Struct, eq=False):
    """`give_up_at`: in the loop's time; `in_doubt`: an answer was lost, so the change may have come
    about already."""

    request: MembershipRequest
    done: Done
    give_up_at: float
    in_doubt: bool = False


class Changes:
    """`host` is the node that all this happens on."""

    def __init__(
        self,
        host: Host,
        memberships: Memberships,
        doorkeeper: Doorkeeper,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._host = host
        self._memberships = memberships
        self._doorkeeper = doorkeeper
        self._loop = loop
        self._pausing: dict[_Asked, asyncio.TimerHandle] = {}
        self._given_up: Failure | None = None

    def change(
        self, request: Request, done: Done, *, may_forward: bool, certified: str = ""
    ) -> None:
        """`may_forward`: a client asks, so this node finds the leader for it; else another node
        does that, and wants to hear where the lead has gone. `certified`: see Host."""
        if isinstance(request, protocol.JoinSelf):
            problem = self._doorkeeper.problem(request, certified)
            if problem is not None:
                done(problem)
                return
            # Whoever was asked has made sure of that; the leader takes its word.
            request = protocol.Join(request.id, request.name, request.address)
            may_forward = True
        patience_s = min(request.patience_ms / 1000 or _PATIENCE_S, _PATIENCE_S)
        asked = _Asked(request, done, self._loop.time() + patience_s)
        if may_forward:
            self._ask(asked)
        else:
            self._carry_out(asked, done)

    def give_up(self, failure: Failure) -> None:
        """The node ends or its disk failed: nothing is asked again."""
        self._given_up = failure
        pausing, self._pausing = self._pausing, {}
        for asked, timer in pausing.items():
            timer.cancel()
            self._answered(asked, failure)

    def _carry_out(self, asked: _Asked, done: Done) -> None:
        """As the leader. One that is to leave hands over, and leaves the rest to the next one."""

        def handed_over(outcome: str | Failure) -> None:
            if isinstance(outcome, Failure):
                done(outcome)
            else:
                done(failure_of(RefusalReason.NOT_LEADER, outcome, ""))

        if not self._host.is_leader():
            done(self._host.why_not_leading())
        elif self._memberships.hands_over_before(asked.request):
            self._host.transfer_leadership("", handed_over)
        else:
            self._memberships.change(asked.request, done, asked.give_up_at)

    def _ask(self, asked: _Asked) -> None:
        self._pausing.pop(asked, None)

        def answered(outcome: protocol.MembershipResult | Failure) -> None:
            self._answered(asked, outcome)

        def replied(outcome: bytes | Failure) -> None:
            answered(outcome if isinstance(outcome, Failure) else membership_result(outcome))

        if self._host.is_leader():
            self._carry_out(asked, answered)
        else:
            self._host.forward(self._with_time_left(asked), replied)

    def _with_time_left(self, asked: _Asked) -> MembershipRequest:
        """The request for the leader, whose patience begins when it gets it."""
        request = asked.request
        if not request.patience_ms:
            return request
        left_ms = max(int((asked.give_up_at - self._loop.time()) * 1000), 1)
        return msgspec.structs.replace(request, patience_ms=left_ms)

    def _answered(self, asked: _Asked, outcome: protocol.MembershipResult | Failure) -> None:
        if not isinstance(outcome, Failure):
            asked.done(outcome)
            return
        is_lost = outcome.code is ErrorCode.UNKNOWN_OUTCOME
        asked.in_doubt = asked.in_doubt or is_lost
        request = asked.request
        is_gone = asked.in_doubt and outcome.code is ErrorCode.NO_SUCH_MEMBER
        if is_gone and isinstance(request, protocol.Leave):
            asked.done(self._memberships.result(f"{request.name} was removed"))
        elif (is_lost or outcome.code in _PASSING) and self._may_ask_again(asked):
            self._pausing[asked] = self._loop.call_later(_RETRY_S, self._ask, asked)
        elif asked.in_doubt and not is_lost:
            what = f"An answer was lost, and then: {outcome.error}; the change may have come about"
            hint = "See what became of it: raftctl member list"
            asked.done(Failure(ErrorCode.UNKNOWN_OUTCOME, what, hint))
        else:
            asked.done(outcome)

    def _may_ask_again(self, asked: _Asked) -> bool:
        return self._given_up is None and self._loop.time() < asked.give_up_at
