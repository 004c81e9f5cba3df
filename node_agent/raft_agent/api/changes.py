"""Requests that change something: the leader serves them, and others pass them on to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import msgspec

from raft_agent.api import problems, protocol
from raft_agent.api.caller import Answer, Caller, error_of
from raft_agent.api.host import MAX_TOGETHER, MAX_TOGETHER_BYTES, Failure, Host, Outcome
from raft_agent.api.protocol import Error, ErrorCode
from raft_agent.api.terms import UNREADABLE
from raft_agent.machine.commands import (
    AddExport,
    CloseSession,
    Command,
    Delete,
    GrantLease,
    InSession,
    KeepLease,
    KeepSession,
    Once,
    OpenSession,
    Put,
    PutLeased,
    RemoveExport,
    RevokeLease,
    SendMessage,
    SetSetting,
    StateCommand,
    Transact,
)
from raft_agent.machine.exports import Export
from raft_agent.machine.results import (
    LeaseGranted,
    LeaseKept,
    Repeated,
    SessionClosed,
    SessionKept,
    SessionOpened,
    SettingDone,
    TransactionDone,
    WriteDone,
)
from raft_agent.machine.transactions import written_bytes

_log = logging.getLogger("raft.api")

# Small requests of many callers are encoded together while they are in the processor's cache.
_ENOUGH = 64
_ENOUGH_BYTES = 64 << 10
# No version of the cluster is without them.
_COMMON = frozenset({Put, Delete, SendMessage})

_Asked: TypeAlias = tuple[Caller, list[protocol.Request]]

_WriteResult = protocol.WriteResult  # at hand for what is answered most often
_REPLY_DECODER = msgspec.msgpack.Decoder(protocol.Reply)


class ChangeHandlers:
    """Serves them for all callers from one host; `handlers` are by type of request."""

    def __init__(self, host: Host) -> None:
        self._host = host
        # What is to be proposed together: of whom, as they came, and what.
        self._asked: list[_Asked] = []
        self._commands: list[Command] = []
        self._size_bytes = 0
        self._has_rare = False
        self._turn_ends = False
        self.handlers: dict[type, Callable[[Caller, Any], None]] = {
            protocol.Send: self._send,
            protocol.Put: self._put,
            protocol.Delete: self._delete,
            protocol.Txn: self._txn,
            protocol.LeaseGrant: self._lease,
            protocol.LeaseKeepalive: self._lease,
            protocol.LeaseRevoke: self._lease,
            protocol.OpenSession: self._session,
            protocol.KeepSession: self._session,
            protocol.CloseSession: self._session,
            protocol.SettingSet: self._setting_set,
            protocol.ExportAdd: self._export,
            protocol.ExportRemove: self._export,
            protocol.Join: self._membership,
            protocol.Leave: self._membership,
            protocol.MemberPromote: self._membership,
            protocol.MemberUpdate: self._membership,
            protocol.JoinSelf: self._membership,
            protocol.LeaderTransfer: self._leader_transfer,
        }

    # --- commands for the log ---------------------------------------------------------------------

    def _put(self, caller: Caller, request: protocol.Put) -> None:
        key, value = request.key, request.value
        problem = problems.put_problem(key, value)
        if problem is not None:
            caller.fail(request.id, problem)
        elif not self._host.is_leader():
            self._not_leader(caller, request, forward=request.forward)
        elif request.once is None and not request.lease:
            self._gather(caller, request, Put(key, value, request.if_revision), len(value))
        else:
            command: Put | PutLeased = Put(key, value, request.if_revision)
            if request.lease:
                command = PutLeased(key, value, request.if_revision, request.lease)
            self._gather(caller, request, _as_asked(command, request.once), len(value))

    def _delete(self, caller: Caller, request: protocol.Delete) -> None:
        problem = problems.key_problem(request.key)
        if problem is not None:
            caller.fail(request.id, problem)
        elif self._host.is_leader():
            command = Delete(request.key, request.if_revision)
            self._gather(caller, request, _as_asked(command, request.once))
        else:
            self._not_leader(caller, request, forward=request.forward)

    def _send(self, caller: Caller, request: protocol.Send) -> None:
        size = len(request.text.encode())
        if size > protocol.MAX_TEXT_BYTES:
            caller.fail(request.id, problems.too_large("text", size, protocol.MAX_TEXT_BYTES))
            return
        # Only another agent may say where a message came in; a client would be lying.
        node = request.node if request.node and not caller.may_forward else self._host.node_name
        if self._host.is_leader():
            command = SendMessage(request.text, node)
            self._gather(caller, request, _as_asked(command, request.once), size)
        else:
            named = msgspec.structs.replace(request, node=node)
            self._not_leader(caller, named, forward=request.forward)

    def _txn(self, caller: Caller, request: protocol.Txn) -> None:
        problem = problems.transaction_problem(request)
        if problem is not None:
            caller.fail(request.id, problem)
        elif self._host.is_leader():
            command = Transact(request.compares, request.then, request.otherwise)
            size_bytes = written_bytes(request.then) + written_bytes(request.otherwise)
            self._gather(caller, request, _as_asked(command, request.once), size_bytes)
        else:
            self._not_leader(caller, request, forward=request.forward)

    def _lease(
        self,
        caller: Caller,
        request: protocol.LeaseGrant | protocol.LeaseKeepalive | protocol.LeaseRevoke,
    ) -> None:
        if not self._host.is_leader():
            self._not_leader(caller, request, forward=request.forward)
        elif isinstance(request, protocol.LeaseGrant):
            self._gather(caller, request, _as_asked(GrantLease(request.ttl_ms), request.once))
        elif isinstance(request, protocol.LeaseRevoke):
            self._gather(caller, request, _as_asked(RevokeLease(request.lease), request.once))
        else:
            self._gather(caller, request, KeepLease(request.lease))

    def _session(
        self,
        caller: Caller,
        request: protocol.OpenSession | protocol.KeepSession | protocol.CloseSession,
    ) -> None:
        if not self._host.is_leader():
            self._not_leader(caller, request, forward=request.forward)
        elif isinstance(request, protocol.OpenSession):
            self._gather(caller, request, OpenSession(request.ttl_ms))
        elif isinstance(request, protocol.KeepSession):
            self._gather(caller, request, KeepSession(request.session))
        else:
            self._gather(caller, request, CloseSession(request.session))

    def _setting_set(self, caller: Caller, request: protocol.SettingSet) -> None:
        if self._host.is_leader():
            self._gather(caller, request, SetSetting(request.name, request.value))
        else:
            self._not_leader(caller, request, forward=request.forward)

    def _export(self, caller: Caller, request: protocol.ExportAdd | protocol.ExportRemove) -> None:
        if not self._host.is_leader():
            self._not_leader(caller, request, forward=request.forward)
        elif isinstance(request, protocol.ExportRemove):
            self._gather(caller, request, RemoveExport(request.map))
        else:
            export = Export(
                request.prefix,
                request.map,
                request.kind,
                request.key,
                request.value,
                request.max_entries,
                request.group,
                request.with_revision,
            )
            self._gather(caller, request, AddExport(export))

    def _gather(
        self, caller: Caller, request: protocol.Request, command: Command, size_bytes: int = 0
    ) -> None:
        """Have `propose` replicate the command. `size_bytes`: about how much data of users is in
        it."""
        caller.in_flight += 1
        if type(command) not in _COMMON and not self._has_rare:
            # It may be refused for what it is, and what is proposed together is refused together.
            self.propose()
            self._has_rare = True
        commands = self._commands
        if commands and (
            len(commands) >= MAX_TOGETHER or self._size_bytes + size_bytes > MAX_TOGETHER_BYTES
        ):
            self.propose()
            commands = self._commands
        asked = self._asked
        if asked and asked[-1][0] is caller:
            asked[-1][1].append(request)
        else:
            asked.append((caller, [request]))
        commands.append(command)
        self._size_bytes += size_bytes

    def finish(self) -> None:
        """No more requests of this caller come in this turn of the loop; maybe of others."""
        commands = self._commands
        if not commands:
            return
        if not self._turn_ends:
            # The host, too, gathers until the turn ends, from the first command on. So that what
            # comes later in this turn still goes with it, its end here has to come before.
            self._turn_ends = True
            asyncio.get_running_loop().call_soon(self._end_turn)
            self.propose()
        elif self._has_rare or len(commands) >= _ENOUGH or self._size_bytes >= _ENOUGH_BYTES:
            self.propose()

    def _end_turn(self) -> None:
        self._turn_ends = False
        self.propose()

    def propose(self) -> None:
        """Replicate what was gathered: one outcome for all of it costs less than as many as there
        are commands."""
        commands = self._commands
        if not commands:
            return
        asked = self._asked
        self._asked, self._commands, self._size_bytes, self._has_rare = [], [], 0, False
        try:
            self._host.propose(commands, partial(_answer, asked))
        except Exception as error:
            # A bug in here must not take the other requests of this node with it.
            _log.exception("%d commands could not be proposed", len(commands))
            _answer(asked, Failure(ErrorCode.INTERNAL, f"Internal error: {error!r}"))

    # --- members and leadership -------------------------------------------------------------------

    def _membership(self, caller: Caller, request: protocol.MembershipRequest) -> None:
        caller.in_flight += 1

        def done(outcome: protocol.MembershipResult | Failure) -> None:
            caller.in_flight -= 1
            if isinstance(outcome, Failure):
                caller.fail(request.id, error_of(outcome))
            else:
                caller.reply(request.id, outcome)

        self._host.change_membership(
            request,
            done,
            may_forward=caller.may_forward,
            certified=caller.principal.certified,
        )

    def _leader_transfer(self, caller: Caller, request: protocol.LeaderTransfer) -> None:
        if not self._host.is_leader():
            self._not_leader(caller, request, forward=request.forward)
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

    def leader_elsewhere(self) -> str | None:
        """The leader's name, when it is known and another node."""
        leader = self._host.leader_name()
        return None if leader == self._host.node_name else leader

    def _not_leader(self, caller: Caller, request: protocol.Request, *, forward: bool) -> None:
        why = self._host.why_not_leading()
        if why.code is ErrorCode.NOT_LEADER and forward and caller.may_forward:
            self.forward(caller, request, partial(caller.fail, request.id))
        else:
            caller.fail(request.id, error_of(why))

    def forward(
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
            except UNREADABLE as error:
                failed(
                    Error(f"The leader's answer can't be read: {error}", ErrorCode.UNKNOWN_OUTCOME)
                )
                return
            if answer.error is not None:
                caller.fail(request.id, answer.error)
            else:
                caller.reply(request.id, result, len(outcome))

        self._host.forward(request, done)


def _txn_result(index: int, term: int, done: TransactionDone) -> protocol.TxnResult:
    results = [
        protocol.OperationResult(
            item.deleted,
            item.more,
            [
                protocol.KeyValue(
                    key.key,
                    key.value,
                    key.revision,
                    key.create_revision,
                    key.version,
                    lease=key.lease,
                )
                for key in item.keys
            ],
        )
        for item in done.results
    ]
    return protocol.TxnResult(index, term, done.revision, done.succeeded, results)


def _as_asked(command: StateCommand, once: protocol.Once) -> Command:
    if once is None:
        return command
    if isinstance(once, protocol.SessionRef):
        return InSession(once.session, once.sequence, once.acked_below, command)
    return Once(once.request_id, once.deadline_ms, command)


def _answer(asked: list[_Asked], outcome: Outcome) -> None:
    if isinstance(outcome, Failure):
        error = error_of(outcome)
        for caller, requests in asked:
            caller.in_flight -= len(requests)
            caller.answer([(request.id, error, None) for request in requests])
        return
    index, term = outcome.first_index - 1, outcome.term
    results = iter(outcome.results)
    for caller, requests in asked:
        caller.in_flight -= len(requests)
        answers: list[Answer] = []
        for request, result in zip(requests, results, strict=False):
            index += 1
            if type(result) is WriteDone:
                done = _WriteResult(index, term, result.revision, result.deleted)
                answers.append((request.id, None, done))
            else:
                answer = _unusual_answer(request, index, term, result)
                if isinstance(answer[2], protocol.TxnResult):
                    caller.reply(request.id, answer[2], _data_bytes(answer[2]))
                else:
                    answers.append(answer)
        caller.answer(answers)


def _data_bytes(result: protocol.TxnResult) -> int:
    return sum(len(key.key) + len(key.value) for done in result.results for key in done.keys)


def _unusual_answer(request: protocol.Request, index: int, term: int, result: object) -> Answer:
    if type(result) is Repeated:
        index, term, result = result.index, result.term, result.result
    if isinstance(result, WriteDone):
        done = protocol.WriteResult(index, term, result.revision, result.deleted)
        return request.id, None, done
    if isinstance(result, TransactionDone):
        return request.id, None, _txn_result(index, term, result)
    if isinstance(result, LeaseGranted | LeaseKept):
        return request.id, None, protocol.LeaseResult(result.lease, result.ttl_ms)
    if isinstance(result, SettingDone):
        return request.id, None, protocol.WriteResult(index, term, result.revision)
    if isinstance(result, SessionOpened):
        return request.id, None, protocol.SessionResult(result.session)
    if isinstance(result, SessionKept | SessionClosed):
        return request.id, None, None
    return request.id, problems.refused(request, index, result), None
