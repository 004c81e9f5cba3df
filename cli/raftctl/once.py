"""Writes that are applied once, however often they have to be sent."""

from __future__ import annotations

import math
import os
import time
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from raft_agent.api import protocol
from raft_agent.api.answers import AgentNotReachable, OutcomeUnknown, RequestFailed
from raft_agent.api.attempts import WRONG_TIME, Attempts
from raftctl.errors import NOT_REACHABLE, CommandError

if TYPE_CHECKING:
    from raftctl.context import Context

Write: TypeAlias = (
    protocol.Put
    | protocol.Delete
    | protocol.Send
    | protocol.Txn
    | protocol.LeaseGrant
    | protocol.LeaseRevoke
)
REPEATABLE = (
    protocol.Put,
    protocol.Delete,
    protocol.Send,
    protocol.Txn,
    protocol.LeaseGrant,
    protocol.LeaseRevoke,
)

_PAUSE_S = 0.05
# By so much the clocks of this machine and the cluster may differ without a second try.
_CLOCK_SLACK_MS = 30_000
_MAX_TTL_MS = 300_000


def write(context: Context, request: Write) -> object:
    """The agent's answer to `request`. When the answer is lost, it is sent again, until the time of
    the call is up: the id that it bears makes sure that it is applied once.

    Raises what SyncClient.request does, and CommandError when nobody answers from the beginning.
    """
    give_up_at = time.monotonic() + context.timeout_s
    request = _numbered(request, context.timeout_s)
    attempts = Attempts(request)
    while True:
        left_s = give_up_at - time.monotonic()
        error: AgentNotReachable | OutcomeUnknown | RequestFailed
        try:
            with context.client(max(math.ceil(left_s * 10) / 10, _PAUSE_S)) as client:
                return client.request(request)
        except CommandError as unreachable:
            if not attempts.in_doubt or unreachable.code != NOT_REACHABLE:
                raise
            error = AgentNotReachable(unreachable.error)
        except RequestFailed as refused:
            if not attempts.in_doubt:
                if refused.code not in WRONG_TIME or left_s < _PAUSE_S:
                    raise
                # Nothing was applied, so it can be said anew in the cluster's time.
                offset_ms = refused.time_ms - time.time_ns() // 1_000_000
                request = _numbered(request, context.timeout_s, offset_ms)
                continue
            error = refused
        except (AgentNotReachable, OutcomeUnknown) as lost:
            error = lost
        attempts.failed(error, is_last=give_up_at - time.monotonic() < _PAUSE_S)
        # It was taken once; whoever leads by now may bring it to its end.
        request = msgspec.structs.replace(request, forward=True)
        time.sleep(_PAUSE_S)


def _numbered(request: Write, timeout_s: float, offset_ms: int = 0) -> Write:
    """`request` under a new id. `offset_ms`: what the cluster's clock is ahead of this one."""
    ttl_ms = min(int(timeout_s * 1000) + _CLOCK_SLACK_MS, _MAX_TTL_MS)
    deadline_ms = max(time.time_ns() // 1_000_000 + offset_ms + ttl_ms, 0)
    return msgspec.structs.replace(request, once=protocol.OneShot(os.urandom(16), deadline_ms))
