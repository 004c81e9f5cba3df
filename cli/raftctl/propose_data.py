"""Keys and their changes as `raftctl propose` shows them."""

from __future__ import annotations

from raft_agent.api import protocol
from raftctl.output import tabbed, value_fields


def key_data(item: protocol.KeyValue) -> dict[str, object]:
    lease = {"lease": item.lease} if item.lease else {}
    return {
        "key": item.key,
        **value_fields(item.value),
        "revision": item.revision,
        "create_revision": item.create_revision,
        "version": item.version,
        **lease,
    }


def event_data(event: protocol.KeyEvent) -> dict[str, object]:
    if event.type == "bookmark":
        return {"type": event.type, "revision": event.revision, "index": event.index}
    value = value_fields(event.value) if event.type == "put" else {}
    lease = {"lease": event.lease} if event.lease else {}
    more = {"more": True} if event.more else {}
    return {
        "type": event.type,
        "key": event.key,
        **value,
        "revision": event.revision,
        "index": event.index,
        **lease,
        **more,
    }


def event_line(event: protocol.KeyEvent) -> str:
    if event.type == "bookmark":
        return f"{event.type}\t{event.revision}"
    if event.type == "put":
        return tabbed(event.type, event.key, event.value)
    return tabbed(event.type, event.key)
