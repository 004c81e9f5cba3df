"""What `raftctl top` has seen at one moment."""

from __future__ import annotations

from dataclasses import dataclass

from raft_agent.api.protocol import EventItem, HealthResult, StatusResult, VitalsResult


@dataclass(frozen=True)
class Look:
    """What the agent said at one moment; `lost`: why it says nothing now."""

    status: StatusResult
    health: HealthResult
    vitals: VitalsResult
    events: list[EventItem]
    lost: str = ""
