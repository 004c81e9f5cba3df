"""What each request does: one handler per op, none of which blocks or makes a task."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

import msgspec

from raft_agent.api import protocol
from raft_agent.api.caller import REPLY_BYTES, Caller, error_of
from raft_agent.api.host import Applied, Failure, Host, Outcome
from raft_agent.api.protocol import Consistency, Error, ErrorCode
from raft_agent.api.streams import (
    EventStream,
    KeyEventEncoder,
    KeyStream,
    MessageStream,
    Stream,
    message_item,
)
from raft_agent.machine.commands import Delete, Put, SendMessage, encode_command
from raft_agent.machine.results import ConditionFailed, WriteDone

_log = logging.getLogger("raft.api")

# One reply to a list holds about this much; the client goes on after the last key.
LIST_BYTES = 8 << 20
# Values are not read for a client that lets this much wait unread.
UNREAD_BYTES = 32 << 20

_REPLY_DECODER = msgspec.msgpack.Decoder(protocol.Reply)

RequestT = TypeVar("RequestT")


class RequestHandlers:
    """Serves the requests of all callers from one host."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._machine = host.machine
        self._key_events = KeyEventEncoder()
        self._reads: list[tuple[Caller, protocol.Get | protocol.List]] = []
        self._handlers: dict[type, Callable[[Caller, Any], None]] = {
            protocol.Status: self._status,
            protocol.Send: self._send,
            protocol.Messages: self._messages,
            protocol.WatchMessages: self._watch_messages,
            protocol.Put: self._put,
            protocol.Delete: self._delete,
            protocol.Get: self._read,
            protocol.List: self._read,
            protocol.WatchKeys: self._watch_keys,
            protocol.MemberList: self._member_list,
            protocol.LeaderTransfer: self._leader_transfer,
            protocol.Health: self._health,
            protocol.Events: self._events,
            protocol.Cancel: self._cancel,
        }

    def handle(self, caller: Caller, request: protocol.Request) -> None:
        """Serve one request; the caller is answered now or later, exactly once."""
        if caller.in_flight >= protocol.MAX_IN_FLIGHT:
            caller.fail(
                request.id,
                Error(
                    f"{protocol.MAX_IN_FLIGHT} requests of this connection wait for an answer",
                    ErrorCode.BUSY,
                    "Wait for some of them before you send more.",
                ),
            )
            return
        try:
            self._handlers[type(request)](caller, request)
        except Exception as error:
            # A bug in one handler must not take the other requests of this node with it.
            _log.exception("request %s failed", type(request).__name__)
            caller.fail(request.id, Error(f"Internal error: {error!r}", ErrorCode.INTERNAL))

    # --- writes -----------------------------------------------------------------------------------

    def _put(self, caller: Caller, request: protocol.Put) -> None:
        problem = _key_problem(request.key)
        if problem is None and len(request.value) > protocol.MAX_VALUE_BYTES:
            problem = _too_large("value", len(request.value), protocol.MAX_VALUE_BYTES)
        if problem is not None:
            caller.fail(request.id, problem)
        elif self._host.is_leader():
            command = Put(request.key, request.value, request.if_revision)
            self._propose(caller, request, encode_command(command))
        else:
            self._not_leader(caller, request)

    def _delete(self, caller: Caller, request: protocol.Delete) -> None:
        problem = _key_problem(request.key)
        if problem is not None:
            caller.fail(request.id, problem)
        elif self._host.is_leader():
            self._propose(caller, request, encode_command(Delete(request.key, request.if_revision)))
        else:
            self._not_leader(caller, request)

    def _send(self, caller: Caller, request: protocol.Send) -> None:
        size = len(request.text.encode())
        if size > protocol.MAX_TEXT_BYTES:
            caller.fail(request.id, _too_large("text", size, protocol.MAX_TEXT_BYTES))
            return
        # Only another agent may say where a message came in; a client would be lying.
        node = request.node if request.node and not caller.may_forward else self._host.node_name
        if self._host.is_leader():
            self._propose(caller, request, encode_command(SendMessage(request.text, node)))
        else:
            self._not_leader(caller, msgspec.structs.replace(request, node=node))

    def _propose(
        self,
        caller: Caller,
        request: protocol.Put | protocol.Delete | protocol.Send,
        command: bytes,
    ) -> None:
        caller.in_flight += 1
        self._host.propose(command, partial(self._write_done, caller, request))

    def _write_done(
        self,
        caller: Caller,
        request: protocol.Put | protocol.Delete | protocol.Send,
        outcome: Outcome,
    ) -> None:
        caller.in_flight -= 1
        if isinstance(outcome, Failure):
            caller.fail(request.id, error_of(outcome))
            return
        result = outcome.result
        if type(result) is WriteDone:
            caller.reply(
                request.id,
                protocol.WriteResult(outcome.index, outcome.term, result.revision, result.deleted),
            )
        else:
            caller.fail(request.id, _refused(request, outcome))

    def _leader_transfer(self, caller: Caller, request: protocol.LeaderTransfer) -> None:
        if not self._host.is_leader():
            self._not_leader(caller, request)
            return
        caller.in_flight += 1

        def done(outcome: str | Failure) -> None:
            caller.in_flight -= 1
            if isinstance(outcome, Failure):
                caller.fail(request.id, error_of(outcome))
            else:
                caller.reply(request.id, protocol.TransferResult(outcome))

        self._host.transfer_leadership(request.target, done)

    # --- forwarding -------------------------------------------------------------------------------

    def _leader_elsewhere(self) -> str | None:
        leader = self._host.leader_name()
        return None if leader == self._host.node_name else leader

    def _not_leader(
        self,
        caller: Caller,
        request: protocol.Put | protocol.Delete | protocol.Send | protocol.LeaderTransfer,
    ) -> None:
        leader = self._leader_elsewhere()
        if leader is None and not self._host.member_list().cluster_id:
            caller.fail(
                request.id,
                Error(
                    "This node belongs to no cluster yet",
                    ErrorCode.NOT_IN_CLUSTER,
                    "raftctl status says what it waits for",
                ),
            )
        elif leader is None:
            caller.fail(
                request.id,
                Error(
                    "No leader is known at the moment",
                    ErrorCode.NO_LEADER,
                    "An election may be going on: try again; "
                    "if it stays so, ask which members answer: raftctl health",
                ),
            )
        elif request.forward and caller.may_forward:
            self._forward(caller, request, partial(caller.fail, request.id))
        else:
            caller.fail(
                request.id,
                Error(
                    "Not leader - send to leader node",
                    ErrorCode.NOT_LEADER,
                    f"Send from leader node: {leader}",
                    leader,
                ),
            )

    def _forward(
        self, caller: Caller, request: protocol.Request, failed: Callable[[Error], None]
    ) -> None:
        """Let the leader answer; `failed` is called when the host could not reach it."""
        caller.in_flight += 1

        def done(outcome: bytes | Failure) -> None:
            caller.in_flight -= 1
            if isinstance(outcome, Failure):
                failed(error_of(outcome))
                return
            try:
                answer = _REPLY_DECODER.decode(outcome)
                result: object = answer.result
                if caller.is_json:
                    result = msgspec.msgpack.decode(answer.result)
            except ValueError as error:
                failed(
                    Error(f"The leader's answer can't be read: {error}", ErrorCode.UNKNOWN_OUTCOME)
                )
                return
            if answer.error is not None:
                caller.fail(request.id, answer.error)
            else:
                caller.reply(request.id, result, len(outcome))

        self._host.forward(request, done)

    # --- reads ------------------------------------------------------------------------------------

    def _read(self, caller: Caller, request: protocol.Get | protocol.List) -> None:
        if request.consistency is Consistency.STALE:
            self._answer_read(caller, request)
            return
        # A lease read is served as a linearizable one, which promises more.
        caller.in_flight += 1
        self._reads.append((caller, request))
        if len(self._reads) == 1:
            asyncio.get_running_loop().call_soon(self._start_barrier)

    def _start_barrier(self) -> None:
        reads, self._reads = self._reads, []
        self._host.read_barrier(partial(self._barrier_done, reads))

    def _barrier_done(
        self,
        reads: list[tuple[Caller, protocol.Get | protocol.List]],
        failure: Failure | None,
    ) -> None:
        for caller, request in reads:
            caller.in_flight -= 1
            if failure is None:
                self._answer_read(caller, request)
            else:
                caller.fail(request.id, error_of(failure))

    def _answer_read(self, caller: Caller, request: protocol.Get | protocol.List) -> None:
        if caller.unsent_bytes() > UNREAD_BYTES:
            caller.fail(request.id, _unread())
        elif isinstance(request, protocol.Get):
            entry = self._machine.get(request.key)
            if entry is None:
                caller.fail(
                    request.id, Error(f'No such key: "{request.key}"', ErrorCode.KEY_NOT_FOUND)
                )
            else:
                # An Entry has the names and types of a KeyValue, so it encodes to the same.
                caller.reply(request.id, entry, len(entry.value))
        else:
            entries, more = self._machine.list(
                request.prefix, request.limit, request.after, max_bytes=LIST_BYTES
            )
            keys = cast("list[protocol.KeyValue]", entries)
            size = sum(len(entry.key) + len(entry.value) + REPLY_BYTES for entry in entries)
            caller.reply(request.id, protocol.ListResult(keys, more, self._machine.revision), size)

    def _messages(self, caller: Caller, request: protocol.Messages) -> None:
        if caller.unsent_bytes() > UNREAD_BYTES:
            caller.fail(request.id, _unread())
            return
        messages = self._machine.messages(request.limit)
        size = sum(len(message.text) + REPLY_BYTES for message in messages)
        items = [message_item(message) for message in messages]
        caller.reply(request.id, protocol.MessagesResult(self._machine.last_applied, items), size)

    # --- the node ---------------------------------------------------------------------------------

    def _status(self, caller: Caller, request: protocol.Status) -> None:
        caller.reply(request.id, self._host.status())

    def _member_list(self, caller: Caller, request: protocol.MemberList) -> None:
        caller.reply(request.id, self._host.member_list())

    def _health(self, caller: Caller, request: protocol.Health) -> None:
        def local(_error: Error | None = None) -> None:
            caller.reply(request.id, self._host.health())

        wants_leader = request.forward and caller.may_forward and not self._host.is_leader()
        if wants_leader and self._leader_elsewhere() is not None:
            self._forward(caller, request, local)
        else:
            local()

    def _events(self, caller: Caller, request: protocol.Events) -> None:
        if request.follow:
            self._start(caller, EventStream(caller, request, self._host))
        else:
            events = self._host.recent_events(request.limit)
            caller.reply(request.id, protocol.EventsResult(events), REPLY_BYTES * len(events))

    # --- streams ----------------------------------------------------------------------------------

    def _watch_keys(self, caller: Caller, request: protocol.WatchKeys) -> None:
        self._start(caller, KeyStream(caller, request, self._machine, self._key_events))

    def _watch_messages(self, caller: Caller, request: protocol.WatchMessages) -> None:
        self._start(caller, MessageStream(caller, request, self._machine))

    def _start(self, caller: Caller, stream: Stream) -> None:
        stream_id = stream.stream_id
        if not caller.may_forward:
            caller.fail(stream_id, Error("A stream can't be forwarded", ErrorCode.BAD_REQUEST))
        elif stream_id in caller.streams:
            caller.fail(
                stream_id,
                Error(f"The id {stream_id} belongs to a stream that stands", ErrorCode.BAD_REQUEST),
            )
        elif len(caller.streams) >= protocol.MAX_STREAMS:
            caller.fail(
                stream_id,
                Error(
                    f"This connection has {protocol.MAX_STREAMS} streams already",
                    ErrorCode.BUSY,
                    "Cancel some, watch a prefix instead of its keys, or open another connection.",
                ),
            )
        else:
            stream.start()

    def _cancel(self, caller: Caller, request: protocol.Cancel) -> None:
        stream = caller.streams.get(request.stream)
        if stream is not None:
            stream.stop()
            caller.forget_pushes(request.stream)
        caller.reply(request.id, None)


def _key_problem(key: str) -> Error | None:
    if not key:
        return Error("A key can't be empty", ErrorCode.BAD_REQUEST)
    # At most four bytes a character: most keys need no encoding to be found short enough.
    if 4 * len(key) > protocol.MAX_KEY_BYTES:
        size = len(key.encode())
        if size > protocol.MAX_KEY_BYTES:
            return _too_large("key", size, protocol.MAX_KEY_BYTES)
    return None


def _too_large(what: str, size: int, limit: int) -> Error:
    return Error(f"The {what} of {size} bytes is over the limit of {limit}", ErrorCode.TOO_LARGE)


def _unread() -> Error:
    return Error(
        "Too many replies wait to be read by this client",
        ErrorCode.BUSY,
        "Read while you send, or ask for less at a time.",
    )


def _refused(request: protocol.Put | protocol.Delete | protocol.Send, outcome: Applied) -> Error:
    """The command stands in the log, but it changed nothing."""
    result = outcome.result
    if isinstance(result, ConditionFailed) and not isinstance(request, protocol.Send):
        actual = result.actual_revision
        found = f"at revision {actual}" if actual else "absent"
        wanted = f"at revision {request.if_revision}" if request.if_revision else "absent"
        return Error(
            f'The key "{request.key}" is {found}, not {wanted}',
            ErrorCode.CONFLICT,
            "Read the key and decide anew.",
        )
    return Error(
        f"The command at log index {outcome.index} was not understood, and changed nothing",
        ErrorCode.INTERNAL,
        "Are all members of the same version? Compare: raftctl status",
    )
