"""The public side for programs that talk to an agent: `Client` for asyncio, `SyncClient` that
blocks, and what they raise. Nothing is imported before it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raft_agent.api.answers import (
        AgentNotReachable,
        HistoryCompacted,
        OutcomeUnknown,
        RaftClientError,
        RequestFailed,
    )
    from raft_agent.api.async_client import Client
    from raft_agent.api.endpoint import Endpoint
    from raft_agent.api.lock import Lock, LockLost
    from raft_agent.api.sync_client import SyncClient
    from raft_agent.api.watch import KeyWatch, Watch

__all__ = [
    "AgentNotReachable",
    "Client",
    "Endpoint",
    "HistoryCompacted",
    "KeyWatch",
    "Lock",
    "LockLost",
    "OutcomeUnknown",
    "RaftClientError",
    "RequestFailed",
    "SyncClient",
    "Watch",
]

_MODULES = {
    "AgentNotReachable": "answers",
    "Client": "async_client",
    "Endpoint": "endpoint",
    "HistoryCompacted": "answers",
    "KeyWatch": "watch",
    "Lock": "lock",
    "LockLost": "lock",
    "OutcomeUnknown": "answers",
    "RaftClientError": "answers",
    "RequestFailed": "answers",
    "SyncClient": "sync_client",
    "Watch": "watch",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(f"raft_agent.api.{_MODULES[name]}"), name)
