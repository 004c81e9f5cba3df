"""Requests that change something: the leader serves them, and others pass them on to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from raft_agent.api import problems, protocol
from raft_agent.api.caller import Caller, error_of
from raft_agent.api.host import Applied, Failure, Host, Outcome
from raft_agent.api.protocol import Error, ErrorCode
from raft_agent.machine.commands import (
    CloseSession,
    Delete,
    GrantLease,
    InSession,
    KeepLease,
    KeepSession,
    Once,
    OpenSession,
    Put,
    PutLeased,
    RevokeLease,
    SendMessage,
    SetSetting,
    StateCommand,
    Transact,
    encode_command,
)
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
from raft_agent.machine.transactions import read_bytes

_REPLY_DECODER = msgspec.msgpack.Decoder(protocol.Reply)


class ChangeHandlers:
    """Serves them for all callers from one host; `handlers` are by type of request."""

    def __init__(self, host: Host) -> None:
        self._host = host
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
            protocol.Join: self._membership,
            protocol.Leave: self._membership,
            protocol.MemberPromote: self._membership,
            protocol.MemberUpdate: self._membership,
            protocol.JoinSelf: self._membership,
            protocol.LeaderTransfer: self._leader_transfer,
        }

    # --- commands for the log ---------------------------------------------------------------------

    def _put(self, caller: Caller, request: protocol.Put) -> None:
        problem = problems.key_problem(request.key)
        if problem is None and len(request.value) > protocol.MAX_VALUE_BYTES:
            size = len(request.value)
            problem = problems.too_large("value", size, protocol.MAX_VALUE_BYTES)
        if problem is not None:
            caller.fail(request.id, problem)
        elif self._host.is_leader():
            command: Put | PutLeased = Put(request.key, request.value, request.if_revision)
            if request.lease:
                command = PutLeased(request.key, request.value, request.if_revision, request.lease)
            self._propose(caller, request, _encoded(command, request.once))
        else:
            self._not_leader(caller, request, forward=request.forward)

    def _delete(self, caller: Caller, request: protocol.Delete) -> None:
        problem = problems.key_problem(request.key)
        if problem is not None:
            caller.fail(request.id, problem)
        elif self._host.is_leader():
            command = Delete(request.key, request.if_revision)
            self._propose(caller, request, _encoded(command, request.once))
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
            self._propose(caller, request, _encoded(command, request.once))
        else:
            named = msgspec.structs.replace(request, node=node)
            self._not_leader(caller, named, forward=request.forward)

    def _txn(self, caller: Caller, request: protocol.Txn) -> None:
        problem = problems.transaction_problem(request)
        if problem is not None:
            caller.fail(request.id, problem)
        elif self._host.is_leader():
            command = Transact(request.compares, request.then, request.otherwise)
            self._propose(caller, request, _encoded(command, request.once))
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
            command = _encoded(GrantLease(request.ttl_ms), request.once)
            self._propose(caller, request, command)
        elif isinstance(request, protocol.LeaseRevoke):
            command = _encoded(RevokeLease(request.lease), request.once)
            self._propose(caller, request, command)
        else:
            self._propose(caller, request, encode_command(KeepLease(request.lease)))

    def _session(
        self,
        caller: Caller,
        request: protocol.OpenSession | protocol.KeepSession | protocol.CloseSession,
    ) -> None:
        if not self._host.is_leader():
            self._not_leader(caller, request, forward=request.forward)
        elif isinstance(request, protocol.OpenSession):
            self._propose(caller, request, encode_command(OpenSession(request.ttl_ms)))
        elif isinstance(request, protocol.KeepSession):
            self._propose(caller, request, encode_command(KeepSession(request.session)))
        else:
            self._propose(caller, request, encode_command(CloseSession(request.session)))

    def _setting_set(self, caller: Caller, request: protocol.SettingSet) -> None:
        if self._host.is_leader():
            command = SetSetting(request.name, request.value)
            self._propose(caller, request, encode_command(command))
        else:
            self._not_leader(caller, request, forward=request.forward)

    def _propose(self, caller: Caller, request: protocol.Request, command: bytes) -> None:
        caller.in_flight += 1
        self._host.propose(command, partial(self._applied, caller, request))

    def _applied(self, caller: Caller, request: protocol.Request, outcome: Outcome) -> None:
        caller.in_flight -= 1
        if isinstance(outcome, Failure):
            caller.fail(request.id, error_of(outcome))
            return
        result = outcome.result
        if type(result) is Repeated:
            outcome = Applied(result.index, result.term, result.result)
            result = outcome.result
        if type(result) is WriteDone:
            caller.reply(
                request.id,
                protocol.WriteResult(outcome.index, outcome.term, result.revision, result.deleted),
            )
        elif isinstance(result, TransactionDone):
            caller.reply(request.id, _txn_result(outcome, result), read_bytes(result))
        elif isinstance(result, LeaseGranted | LeaseKept):
            caller.reply(request.id, protocol.LeaseResult(result.lease, result.ttl_ms))
        elif isinstance(result, SettingDone):
            caller.reply(
                request.id, protocol.WriteResult(outcome.index, outcome.term, result.revision)
            )
        elif isinstance(result, SessionOpened):
            caller.reply(request.id, protocol.SessionResult(result.session))
        elif isinstance(result, SessionKept | SessionClosed):
            caller.reply(request.id, None)
        else:
            caller.fail(request.id, problems.refused(request, outcome))

    # --- members and leadership -------------------------------------------------------------------

    def _membership(self, caller: Caller, request: protocol.MembershipRequest) -> None:
        caller.in_flight += 1

        def done(outcome: protocol.MembershipResult | Failure) -> None:
            caller.in_flight -= 1
            if isinstance(outcome, Failure):
                caller.fail(request.id, error_of(outcome))
            else:
                caller.reply(request.id, outcome)

        self._host.change_membership(request, done, may_forward=caller.may_forward)

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


def _txn_result(outcome: Applied, done: TransactionDone) -> protocol.TxnResult:
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
    return protocol.TxnResult(outcome.index, outcome.term, done.revision, done.succeeded, results)


def _encoded(command: StateCommand, once: protocol.Once) -> bytes:
    if once is None:
        return encode_command(command)
    if isinstance(once, protocol.SessionRef):
        return encode_command(InSession(once.session, once.sequence, once.acked_below, command))
    return encode_command(Once(once.request_id, once.deadline_ms, command))
