"""The metrics of exported maps. A node that keeps none has no value for any of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from raft_agent.api.protocol import ExportListResult
from raft_agent.http.family import Family, Group, Kind, Sample
from raft_agent.http.source import Reading

_STATES = ("filling", "ready", "degraded")


def _gauge(
    name: str, label: str, text: str, read: Callable[[ExportListResult], Iterable[Sample]]
) -> Family:
    def read_if_any(reading: Reading) -> Iterable[Sample]:
        return [] if reading.exports is None else read(reading.exports)

    return Family(name, Kind.GAUGE, text, (label,) if label else (), read_if_any)


EXPORTS = Group(
    "Exported maps",
    (
        _gauge(
            "raft_export_state",
            "state",
            "1 for the state that this node's maps are in, 0 for the others; absent when it keeps "
            "none, like all metrics of them.",
            lambda found: [((state,), float(state == found.state)) for state in _STATES],
        ),
        _gauge(
            "raft_export_applied_index",
            "",
            "Everything up to this entry of the log is in the maps.",
            lambda found: [((), found.applied_index)],
        ),
        _gauge(
            "raft_export_fresh_seconds",
            "",
            "For how long the maps still count as fresh; 0: they do not.",
            lambda found: [((), found.fresh_ms / 1000)],
        ),
        _gauge(
            "raft_export_entries",
            "map",
            "Keys that stand in the map.",
            lambda found: [((export.map,), export.entries) for export in found.exports],
        ),
        _gauge(
            "raft_export_failed",
            "map",
            "1 while this node can't keep the map as the log says.",
            lambda found: [((export.map,), bool(export.problem)) for export in found.exports],
        ),
    ),
)
