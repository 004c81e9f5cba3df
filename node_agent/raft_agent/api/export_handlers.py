"""Requests about exported maps: what this node's kernel has of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raft_agent.api import protocol
from raft_agent.api.caller import REPLY_BYTES, Caller, error_of
from raft_agent.api.host import Failure, Host
from raft_agent.api.streams import Stream


class ExportStream(Stream):
    """What is written to one map of this node."""

    def __init__(self, caller: Caller, request: protocol.ExportWatch, host: Host) -> None:
        super().__init__(caller, request.id)
        self._map = request.map
        self._host = host

    def start(self) -> None:
        cancel = self._host.watch_export(self._map, self._push)
        if isinstance(cancel, Failure):
            self.caller.fail(self.stream_id, error_of(cancel))
        else:
            self._started(self._host.machine.last_applied, cancel)

    def _push(self, event: protocol.ExportEvent) -> None:
        self.caller.push(self.stream_id, event, len(event.key) + len(event.value))


class ExportHandlers:
    """`handlers` are by type of request."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.handlers: dict[type, Callable[[Caller, Any], None]] = {
            protocol.ExportList: self._list,
            protocol.ExportDump: self._dump,
        }

    def _list(self, caller: Caller, request: protocol.ExportList) -> None:
        result = self._host.export_list()
        caller.reply(request.id, result, REPLY_BYTES * len(result.exports))

    def _dump(self, caller: Caller, request: protocol.ExportDump) -> None:
        caller.in_flight += 1

        def done(found: protocol.ExportDumpResult | Failure) -> None:
            caller.in_flight -= 1
            if isinstance(found, Failure):
                caller.fail(request.id, error_of(found))
            else:
                caller.reply(request.id, found, REPLY_BYTES * len(found.entries))

        self._host.export_dump(request.map, request.limit, done)
