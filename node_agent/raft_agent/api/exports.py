"""Exported maps in the API. Use them as members of `protocol`."""

from __future__ import annotations

import msgspec

from raft_agent.api.terms import BaseRequest, KeyText, Limit, Name, Number
from raft_agent.machine.export_types import KEY_TYPES as EXPORT_KEY_TYPES
from raft_agent.machine.export_types import VALUE_TYPES as EXPORT_VALUE_TYPES
from raft_agent.machine.exports import KINDS as EXPORT_KINDS
from raft_agent.machine.exports import MAX_ENTRIES as MAX_EXPORT_ENTRIES

__all__ = ["EXPORT_KEY_TYPES", "EXPORT_KINDS", "EXPORT_VALUE_TYPES", "MAX_EXPORT_ENTRIES"]


class ExportAdd(BaseRequest, frozen=True, tag="export_add"):
    """Have the keys below `prefix` stand in the map `map` of the kernel, on every node; see
    `machine.exports.Export`."""

    prefix: KeyText
    map: Name
    kind: Name
    key: Name
    value: Name
    max_entries: Number
    group: Name = ""
    with_revision: bool = False
    forward: bool = False


class ExportRemove(BaseRequest, frozen=True, tag="export_remove"):
    """No longer export the map; its keys stay."""

    map: Name
    forward: bool = False


class ExportList(BaseRequest, frozen=True, tag="export_list"):
    """What is exported, and how this node's kernel has it."""


class ExportDump(BaseRequest, frozen=True, tag="export_dump"):
    """What this node's kernel has in the map, at most `limit` entries, in no order."""

    map: Name
    limit: Limit = 10_000


class ExportWatch(BaseRequest, frozen=True, tag="export_watch"):
    """What is written to this node's map, as it is."""

    map: Name


class ExportInfo(msgspec.Struct, frozen=True):
    """`version`: of the layout; `entries`: how many keys the log has there. `path`: the pin at this
    node, empty where maps are not kept. `problem`: why this node's map is not what it should be."""

    map: str
    prefix: str
    kind: str
    key: str
    value: str
    max_entries: int
    group: str
    with_revision: bool
    version: int
    entries: int
    path: str
    problem: str = ""


class ExportListResult(msgspec.Struct, frozen=True):
    """`state`: "off" where the node keeps no maps, "filling", "ready" or "degraded"; `reason`: why
    it is off or degraded. Everything up to `applied_index` is in the maps. `fresh_ms`: for how long
    the copy still counts as fresh; 0: it does not."""

    state: str
    reason: str
    applied_index: int
    fresh_ms: int
    exports: list[ExportInfo]


class ExportEntry(msgspec.Struct, frozen=True):
    """`key` is the store's, `value` what it holds; `revision` 0 where values carry none."""

    key: str
    value: bytes
    revision: int = 0


class ExportDumpResult(msgspec.Struct, frozen=True):
    """`more`: there were more than the limit."""

    map: str
    applied_index: int
    entries: list[ExportEntry]
    more: bool = False


class ExportEvent(msgspec.Struct, frozen=True):
    """`type` is "put" or "delete" (then without a value); `index`: of the log, when that was in the
    map."""

    type: str
    key: str
    value: bytes
    revision: int
    index: int
