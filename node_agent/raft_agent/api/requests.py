"""What each request does: one handler per op, none of which blocks or makes a task."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias, cast

from raft_agent import wire
from raft_agent.api import audit, problems, protocol, rescuing
from raft_agent.api.caller import REPLY_BYTES, Caller, error_of
from raft_agent.api.changes import ChangeHandlers
from raft_agent.api.export_handlers import ExportHandlers, ExportStream
from raft_agent.api.host import Failure, Host
from raft_agent.api.key_streams import KeyEventEncoder, KeyStream
from raft_agent.api.limits import Crowd
from raft_agent.api.protocol import Consistency, Error, ErrorCode
from raft_agent.api.rights import denial
from raft_agent.api.streams import (
    EventStream,
    MessageStream,
    Stream,
    message_item,
)
from raft_agent.machine.entry import Entry
from raft_agent.machine.settings import SETTINGS
from raft_agent.tls.identity import Role

_log = logging.getLogger("raft.api")

# One reply to a list holds about this much; the client goes on after the last key.
LIST_BYTES = 8 << 20
# Values are not read for a client that lets this much wait unread.
UNREAD_BYTES = 32 << 20

_Read = tuple[Caller, protocol.Get | protocol.List]
_ByLeader: TypeAlias = (
    protocol.MemberList
    | protocol.Health
    | protocol.LeaseList
    | protocol.LeaseShow
    | protocol.StateCheck
)

# What reads the replicated state or changes it.
_OF_STATE = frozenset(
    {
        protocol.Send,
        protocol.Messages,
        protocol.WatchMessages,
        protocol.Put,
        protocol.Delete,
        protocol.Get,
        protocol.List,
        protocol.WatchKeys,
        protocol.SnapshotSave,
        protocol.Txn,
        protocol.LeaseGrant,
        protocol.LeaseKeepalive,
        protocol.LeaseRevoke,
        protocol.LeaseList,
        protocol.LeaseShow,
        protocol.OpenSession,
        protocol.KeepSession,
        protocol.CloseSession,
        protocol.SettingsList,
        protocol.SettingSet,
        protocol.ExportAdd,
        protocol.ExportRemove,
    }
)


class RequestHandlers:
    """Serves the requests of all callers from one host."""

    def __init__(self, host: Host, crowd: Crowd) -> None:
        self._host = host
        self._crowd = crowd
        self._machine = host.machine
        self._changes = ChangeHandlers(host)
        self._key_events = KeyEventEncoder()
        self._reads: list[_Read] = []
        self._lease_reads: list[_Read] = []
        self._handlers: dict[type, Callable[[Caller, Any], None]] = {
            **self._changes.handlers,
            **ExportHandlers(host).handlers,
            protocol.Status: self._status,
            protocol.Messages: self._messages,
            protocol.WatchMessages: self._watch_messages,
            protocol.Get: self._read,
            protocol.List: self._read,
            protocol.LeaseList: self._leases,
            protocol.LeaseShow: self._leases,
            protocol.WatchKeys: self._watch_keys,
            protocol.SettingsList: self._settings_list,
            protocol.MemberList: self._member_list,
            protocol.JoinChallenge: self._join_challenge,
            protocol.Recover: partial(rescuing.recover, host),
            protocol.SnapshotSave: self._snapshot_save,
            protocol.Health: self._health,
            protocol.Vitals: self._vitals,
            protocol.Events: self._events,
            protocol.ExportWatch: self._watch_export,
            protocol.Kernel: self._kernel,
            protocol.FaultSet: self._fault,
            protocol.FaultHeal: self._fault,
            protocol.FaultFlip: self._flip,
            protocol.StateCheck: self._check_states,
            protocol.Rebuild: self._rebuild,
            protocol.Cancel: self._cancel,
        }
        for kind, handler in self._handlers.items():
            if audit.is_audited(kind):
                self._handlers[kind] = partial(self._audited, handler)

    def handle(self, caller: Caller, request: protocol.Request) -> None:
        """Serve one request; the caller is answered now or later, exactly once. `finish` has to
        follow."""
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
        if caller.principal.role is not Role.ADMIN:
            denied = denial(caller.principal, request)
            if denied is not None:
                self._refuse(caller, request, denied)
                return
        unfit = self._host.unfit
        if unfit is not None and type(request) in _OF_STATE:
            self._refuse(caller, request, error_of(unfit))
            return
        try:
            self._handlers[type(request)](caller, request)
        except Exception as error:
            _failed(caller, request, error)

    def _refuse(self, caller: Caller, request: protocol.Request, error: Error) -> None:
        if audit.is_audited(type(request)):
            caller = audit.AuditedCaller(caller, request, self._host.audit)
        caller.fail(request.id, error)

    def _audited(
        self,
        handler: Callable[[Caller, Any], None],
        caller: Caller,
        request: protocol.Request,
    ) -> None:
        """Serve a request whose outcome is told to the host."""
        watched = audit.AuditedCaller(caller, request, self._host.audit)
        try:
            handler(watched, request)
        except Exception as error:
            watched.tell(f"{ErrorCode.INTERNAL}: {error!r}")
            raise

    def handle_all(
        self, caller: Caller, requests: Sequence[protocol.Request | tuple[int, Error]]
    ) -> None:
        """Serve the requests of one frame, and refuse those that came with an error. What `handle`
        asks of each is asked once, as long as nothing is in their way."""
        is_clear = (
            caller.principal.role is Role.ADMIN
            and self._host.unfit is None
            and caller.in_flight + len(requests) <= protocol.MAX_IN_FLIGHT
        )
        handlers = self._handlers
        for request in requests:
            if isinstance(request, tuple):
                caller.fail(*request)
            elif is_clear:
                try:
                    handlers[type(request)](caller, request)
                except Exception as error:
                    _failed(caller, request, error)
            else:
                self.handle(caller, request)
        self._changes.finish()

    def finish(self) -> None:
        """No more requests of a caller come in this turn of the loop."""
        self._changes.finish()

    # --- reads ------------------------------------------------------------------------------------

    def _read(self, caller: Caller, request: protocol.Get | protocol.List) -> None:
        if request.consistency is Consistency.STALE:
            self._answer_read(caller, request, age_ms=self._host.stale_age_ms())
            return
        caller.in_flight += 1
        lease = request.consistency is Consistency.LEASE
        reads = self._lease_reads if lease else self._reads
        reads.append((caller, request))
        if len(reads) == 1:
            start = self._start_lease_barrier if lease else self._start_barrier
            asyncio.get_running_loop().call_soon(start)

    def _start_barrier(self) -> None:
        reads, self._reads = self._reads, []
        self._host.read_barrier(partial(self._barrier_done, reads))

    def _start_lease_barrier(self) -> None:
        reads, self._lease_reads = self._lease_reads, []
        self._host.read_barrier(partial(self._barrier_done, reads), lease=True)

    def _barrier_done(self, reads: list[_Read], failure: Failure | None) -> None:
        # The state may have become unfit while they waited.
        failure = failure or self._host.unfit
        for caller, request in reads:
            caller.in_flight -= 1
            if caller.is_gone:
                continue  # it leaves nothing unread, so no limit would hold this up
            if failure is None:
                self._answer_read(caller, request)
            else:
                caller.fail(request.id, error_of(failure))

    def _answer_read(
        self, caller: Caller, request: protocol.Get | protocol.List, age_ms: int | None = None
    ) -> None:
        if caller.unsent_bytes() > UNREAD_BYTES:
            caller.fail(request.id, problems.too_much_unread())
        elif isinstance(request, protocol.Get):
            self._answer_get(caller, request, age_ms)
        else:
            entries, more = self._machine.list(
                request.prefix, request.limit, request.after, max_bytes=LIST_BYTES
            )
            keys = self._with_leases(entries)
            size = sum(len(entry.key) + len(entry.value) + REPLY_BYTES for entry in entries)
            result = protocol.ListResult(keys, more, self._machine.revision, age_ms)
            caller.reply(request.id, result, size)

    def _answer_get(self, caller: Caller, request: protocol.Get, age_ms: int | None) -> None:
        entry = self._machine.get(request.key)
        if entry is None:
            caller.fail(request.id, problems.no_such_key(request, age_ms))
        elif age_ms is None and not self._machine.leases.lease_of:
            # An Entry has the names and types of a KeyValue, so it encodes to the same.
            caller.reply(request.id, entry, len(entry.value))
        else:
            lease = self._machine.lease_of(entry.key)
            caller.reply(request.id, _key_value(entry, lease, age_ms), len(entry.value))

    def _with_leases(self, entries: list[Entry]) -> list[protocol.KeyValue]:
        lease_of = self._machine.leases.lease_of
        if not lease_of:
            return cast("list[protocol.KeyValue]", entries)
        return [_key_value(entry, lease_of.get(entry.key, 0)) for entry in entries]

    def _leases(self, caller: Caller, request: protocol.LeaseList | protocol.LeaseShow) -> None:
        def local(_error: Error | None = None) -> None:
            caller.in_flight += 1
            self._host.read_barrier(partial(self._answer_leases, caller, request))

        self._by_leader(caller, request, local)

    def _answer_leases(
        self,
        caller: Caller,
        request: protocol.LeaseList | protocol.LeaseShow,
        failure: Failure | None,
    ) -> None:
        caller.in_flight -= 1
        failure = failure or self._host.unfit
        if failure is not None:
            caller.fail(request.id, error_of(failure))
            return
        leases, times_ms = self._machine.leases, self._host.lease_times_ms()
        if isinstance(request, protocol.LeaseList):
            infos = [
                protocol.LeaseInfo(item.id, item.ttl_ms, times_ms.get(item.id), len(item.keys))
                for item in leases
            ]
            caller.reply(request.id, protocol.LeaseListResult(infos), REPLY_BYTES * len(infos))
            return
        lease = leases.get(request.lease)
        if lease is None:
            caller.fail(request.id, problems.lease_not_found(request.lease))
            return
        keys = sorted(lease.keys)
        info = protocol.LeaseInfo(lease.id, lease.ttl_ms, times_ms.get(lease.id), len(keys), keys)
        caller.reply(request.id, info, sum(len(key) for key in keys))

    def _messages(self, caller: Caller, request: protocol.Messages) -> None:
        if caller.unsent_bytes() > UNREAD_BYTES:
            caller.fail(request.id, problems.too_much_unread())
            return
        messages = self._machine.messages(request.limit)
        size = 0
        for message in messages:
            size += len(message.text) + REPLY_BYTES
            if size > wire.MAX_BODY_BYTES:  # looked at before all of it is encoded
                caller.fail(request.id, problems.too_many_messages(len(messages)))
                return
        items = [message_item(message) for message in messages]
        caller.reply(request.id, protocol.MessagesResult(self._machine.last_applied, items), size)

    # --- the node ---------------------------------------------------------------------------------

    def _status(self, caller: Caller, request: protocol.Status) -> None:
        caller.reply(request.id, self._host.status())

    def _settings_list(self, caller: Caller, request: protocol.SettingsList) -> None:
        values = self._machine.settings
        settings = [
            protocol.SettingInfo(name, getattr(values, name), setting.default, setting.meaning)
            for name, setting in SETTINGS.items()
        ]
        caller.reply(request.id, protocol.SettingsResult(settings))

    def _member_list(self, caller: Caller, request: protocol.MemberList) -> None:
        self._of_leader(caller, request, self._host.member_list)

    def _health(self, caller: Caller, request: protocol.Health) -> None:
        self._of_leader(caller, request, self._host.health)

    def _vitals(self, caller: Caller, request: protocol.Vitals) -> None:
        caller.reply(request.id, self._host.vitals())

    def _of_leader(
        self,
        caller: Caller,
        request: protocol.MemberList | protocol.Health,
        view: Callable[[], object],
    ) -> None:
        """The leader's view when that is wanted and there is one, else this node's."""

        def local(_error: Error | None = None) -> None:
            caller.reply(request.id, view())

        self._by_leader(caller, request, local)

    def _by_leader(
        self,
        caller: Caller,
        request: _ByLeader,
        local: Callable[[Error | None], None],
    ) -> None:
        """Have the leader answer, or `local` do it when that is not wanted or does not work."""
        wants_leader = request.forward and caller.may_forward and not self._host.is_leader()
        if wants_leader and self._changes.leader_elsewhere() is not None:
            self._changes.forward(caller, request, local)
        else:
            local(None)

    def _join_challenge(self, caller: Caller, request: protocol.JoinChallenge) -> None:
        caller.reply(request.id, protocol.ChallengeResult(self._host.join_challenge()))

    def _events(self, caller: Caller, request: protocol.Events) -> None:
        if request.follow:
            self._start(caller, EventStream(caller, request, self._host))
        else:
            events = self._host.recent_events(request.limit)
            caller.reply(request.id, protocol.EventsResult(events), REPLY_BYTES * len(events))

    def _kernel(self, caller: Caller, request: protocol.Kernel) -> None:
        caller.reply(request.id, self._host.kernel())

    def _fault(self, caller: Caller, request: protocol.FaultSet | protocol.FaultHeal) -> None:
        if isinstance(request, protocol.FaultSet):
            answer = self._host.set_fault(request)
        else:
            answer = self._host.heal_faults(request)
        if isinstance(answer, Failure):
            caller.fail(request.id, error_of(answer))
        else:
            caller.reply(request.id, answer)

    def _flip(self, caller: Caller, request: protocol.FaultFlip) -> None:
        failure = self._host.flip_state(request.key)
        if failure is None:
            caller.reply(request.id, None)
        else:
            caller.fail(request.id, error_of(failure))

    def _check_states(self, caller: Caller, request: protocol.StateCheck) -> None:
        def local(error: Error | None = None) -> None:
            if error is not None:
                caller.fail(request.id, error)
                return
            caller.in_flight += 1
            self._host.check_states(partial(self._told, caller, request.id))

        self._by_leader(caller, request, local)

    def _rebuild(self, caller: Caller, request: protocol.Rebuild) -> None:
        caller.in_flight += 1
        self._host.rebuild(force=request.force, done=partial(self._told, caller, request.id))

    def _told(self, caller: Caller, request_id: int, result: object) -> None:
        caller.in_flight -= 1
        if isinstance(result, Failure):
            caller.fail(request_id, error_of(result))
        else:
            caller.reply(request_id, result)

    # --- streams ----------------------------------------------------------------------------------

    def _watch_keys(self, caller: Caller, request: protocol.WatchKeys) -> None:
        self._start(caller, KeyStream(caller, request, self._machine, self._key_events))

    def _watch_messages(self, caller: Caller, request: protocol.WatchMessages) -> None:
        self._start(caller, MessageStream(caller, request, self._machine))

    def _watch_export(self, caller: Caller, request: protocol.ExportWatch) -> None:
        self._start(caller, ExportStream(caller, request, self._host))

    def _snapshot_save(self, caller: Caller, request: protocol.SnapshotSave) -> None:
        self._start(caller, rescuing.BackupStream(caller, request, self._host))

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
        elif too_many := self._crowd.too_many_streams():
            caller.fail(stream_id, too_many)
        else:
            stream.start()

    def _cancel(self, caller: Caller, request: protocol.Cancel) -> None:
        stream = caller.streams.get(request.stream)
        if stream is not None:
            stream.stop()
            caller.forget_pushes(request.stream)
        caller.reply(request.id, None)


def _failed(caller: Caller, request: protocol.Request, error: Exception) -> None:
    """A bug in one handler must not take the other requests of this node with it."""
    _log.error("request %s failed", type(request).__name__, exc_info=error)
    caller.fail(request.id, Error(f"Internal error: {error!r}", ErrorCode.INTERNAL))


def _key_value(entry: Entry, lease: int, age_ms: int | None = None) -> protocol.KeyValue:
    return protocol.KeyValue(
        entry.key,
        entry.value,
        entry.revision,
        entry.create_revision,
        entry.version,
        age_ms,
        lease,
    )
