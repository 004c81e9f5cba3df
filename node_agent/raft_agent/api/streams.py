"""Watches and followed events: what is pushed to a client until it cancels or leaves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime, timedelta

from raft_agent.api import protocol
from raft_agent.api.caller import Caller
from raft_agent.api.host import Host
from raft_agent.machine.machine import Machine
from raft_agent.machine.watches import Message

# A stream of old messages waits while this much is unsent, instead of filling the memory.
PUMP_BYTES = 1 << 20
_PUMP_ITEMS = 256

_EPOCH = datetime(1970, 1, 1)
_LAST_TIME_MS = 253_402_300_799_999  # the end of the year 9999, where RFC 3339 ends


def time_text(time_ms: int) -> str:
    """Milliseconds since 1970 as RFC 3339 in UTC."""
    moment = _EPOCH + timedelta(milliseconds=min(time_ms, _LAST_TIME_MS))
    return moment.isoformat(timespec="milliseconds") + "Z"


def message_item(message: Message) -> protocol.MessageItem:
    return protocol.MessageItem(
        message.index, time_text(message.time_ms), message.node, message.text
    )


class Stream(ABC):
    """`start` puts the stream among its caller's and answers; `stop` ends it without a word.

    A stream that is `waiting` has more to push, and wants `pump` once the client has read.
    """

    waiting = False

    def __init__(self, caller: Caller, stream_id: int) -> None:
        self.caller = caller
        self.stream_id = stream_id
        self._cancel: Callable[[], None] | None = None

    @abstractmethod
    def start(self) -> None: ...

    def pump(self) -> None:
        """The client has read: go on where the stream waited for that."""
        self.waiting = False

    def stop(self) -> None:
        """Nothing is pushed from now on."""
        self.caller.streams.pop(self.stream_id, None)
        if self._cancel is not None:
            self._cancel()
            self._cancel = None

    def end(self, error: protocol.Error) -> None:
        """Stop, and say why."""
        self.stop()
        self.caller.push_end(self.stream_id, error)

    def _started(self, index: int, cancel: Callable[[], None], revision: int = 0) -> None:
        self._cancel = cancel
        self.caller.streams[self.stream_id] = self
        self.caller.reply(self.stream_id, protocol.StreamStarted(index, revision))


class MessageStream(Stream):
    """Messages after a log index. The past is sent as fast as the client reads, not faster."""

    def __init__(self, caller: Caller, request: protocol.WatchMessages, machine: Machine) -> None:
        super().__init__(caller, request.id)
        self._machine = machine
        if request.after_index < 0:
            self._position = machine.last_applied
        else:
            self._position = max(request.after_index, machine.messages_dropped)

    def start(self) -> None:
        watches = self._machine.watches
        self._started(self._position, watches.watch_messages(self._added, self._jumped))
        self.pump()

    def _added(self, _messages: list[Message]) -> None:
        self.pump()

    def _jumped(self, _revision: int) -> None:
        self.pump()

    def pump(self) -> None:
        machine = self._machine
        caller = self.caller
        self.waiting = False
        while True:
            if self._position < machine.messages_dropped:
                self._end_behind()
                return
            messages = machine.messages_after(self._position, _PUMP_ITEMS)
            for message in messages:
                if caller.unsent_bytes() >= PUMP_BYTES:
                    self.waiting = True
                    return
                caller.push(self.stream_id, message_item(message), len(message.text))
                self._position = message.index
            if not messages:
                return

    def _end_behind(self) -> None:
        self.end(
            protocol.Error(
                f"The stream fell behind: messages after index {self._position} are gone",
                protocol.ErrorCode.BUSY,
                f"Only the newest messages are kept; watch anew after index "
                f"{self._machine.messages_dropped}, and read faster.",
            )
        )


class EventStream(Stream):
    """The newest events of this node, then new ones as they happen."""

    def __init__(self, caller: Caller, request: protocol.Events, host: Host) -> None:
        super().__init__(caller, request.id)
        self._limit = request.limit
        self._host = host

    def start(self) -> None:
        host = self._host
        self._started(host.machine.last_applied, host.subscribe_events(self._push))
        for event in host.recent_events(self._limit):
            self._push(event)

    def _push(self, event: protocol.EventItem) -> None:
        self.caller.push(self.stream_id, event, len(event.text))
