"""Joins, leaves and other changes of the members, as people ask for them: the leader's side.

Before a member is added the leader dials its address, so that what becomes a member is known to be
there, to bear the right name, and to belong to nobody yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from raft_agent.api import protocol
from raft_agent.api.host import Failure
from raft_agent.api.protocol import ErrorCode
from raft_agent.api.terms import UNREADABLE
from raft_agent.config.values import dial_address
from raft_agent.consensus.node import Node
from raft_agent.consensus.types import (
    ChangeMembership,
    Configuration,
    Event,
    Joining,
    Member,
    MembershipChange,
    MembershipChanged,
    RefusalReason,
    Refused,
    Role,
)
from raft_agent.runtime.refusals import failure_of, no_such_member
from raft_agent.transport.handshake import Hello
from raft_agent.transport.transport import ProbeFailed, Transport

MembershipRequest: TypeAlias = (
    protocol.Join | protocol.Leave | protocol.MemberPromote | protocol.MemberUpdate
)
Done: TypeAlias = Callable[[protocol.MembershipResult | Failure], None]

_REPLY = msgspec.msgpack.Decoder(protocol.Reply)
_RESULT = msgspec.msgpack.Decoder(protocol.MembershipResult)

_PROBE_TIMEOUT_S = 2.0
# However late it is: in less time a good address would be called a bad one.
_PROBE_AT_LEAST_S = 0.5
_RETRY_S = 0.05
# Another change, or a new leader's first entry, may be through in a moment.
_PASSING = frozenset(
    {RefusalReason.CHANGE_PENDING, RefusalReason.NOT_READY, RefusalReason.TRANSFERRING}
)


class _Wanted(msgspec.Struct, eq=False):
    """A request that is tried until it is refused for good, or until `give_up_at` in the loop's
    time. `change`: what it comes to; `note`: what to say when that is done; `joiner`: who becomes a
    member by it.
    """

    request: MembershipRequest
    done: Done
    give_up_at: float
    change: MembershipChange = MembershipChange()
    note: str = ""
    joiner: Hello | None = None


class Memberships:
    """`list_members`: as the API shows them. `next_tag`: shared with others who ask the core.
    `joiner_problem`: why a program of this kind can't be a member's.
    """

    def __init__(
        self,
        *,
        node: Node,
        transport: Transport,
        loop: asyncio.AbstractEventLoop,
        feed: Callable[[Event], None],
        next_tag: Callable[[], int],
        list_members: Callable[[], protocol.MemberListResult],
        joiner_problem: Callable[[Hello], Failure | None] = lambda _: None,
    ) -> None:
        self._node = node
        self._transport = transport
        self._loop = loop
        self._feed = feed
        self._next_tag = next_tag
        self._list = list_members
        self._joiner_problem = joiner_problem
        self._wanted: dict[int, _Wanted] = {}
        self._joins: dict[asyncio.Task[None], Done] = {}
        self._pausing: dict[_Wanted, asyncio.TimerHandle] = {}
        self._given_up: Failure | None = None

    # --- requests

    def change(self, request: MembershipRequest, done: Done, give_up_at: float) -> None:
        """Carry out `request`; this node leads. What only has to wait its turn is refused when that
        has not come by `give_up_at`, in the loop's time."""
        wanted = _Wanted(request, done, give_up_at)
        configuration = self._node.configuration
        if self._given_up is not None or configuration is None:
            done(self._given_up or failure_of(RefusalReason.FRESH, "", ""))
        elif isinstance(request, protocol.Join):
            task = self._loop.create_task(self._join(wanted, request))
            self._joins[task] = done
            task.add_done_callback(lambda task: self._joins.pop(task, None))
        elif isinstance(request, protocol.Leave):
            self._leave(configuration, wanted, request)
        elif isinstance(request, protocol.MemberPromote):
            self._promote(configuration, wanted, request)
        else:
            self._update(configuration, wanted, request)

    async def _join(self, wanted: _Wanted, request: protocol.Join) -> None:
        done = wanted.done
        left_s = wanted.give_up_at - self._loop.time()
        patience_s = min(_PROBE_TIMEOUT_S, max(left_s, _PROBE_AT_LEAST_S))
        try:
            hello = await self._transport.probe(request.address, patience_s)
        except ProbeFailed as failed:
            done(
                Failure(
                    ErrorCode.REFUSED,
                    f"No agent answers at {request.address}: {failed}",
                    f"Start the agent of {request.name} there, or correct the address",
                )
            )
            return
        configuration = self._node.configuration
        if configuration is None or self._node.role is not Role.LEADER:
            done(failure_of(RefusalReason.NOT_LEADER, "", ""))
            return
        problem = _problem(configuration, request, hello) or _role_problem(
            configuration, request, hello.member_id
        )
        if problem is not None:
            done(problem)
            return
        known = _by_id(configuration, hello.member_id)
        member = Member(hello.member_id, request.name, request.address)
        replaced = _by_name(configuration, request.replace) if request.replace else None
        joining = Joining(member.id, replaced.id if replaced else 0)
        asked_before = _joining(configuration, member.id)
        becomes_more = not request.learner and member.id in configuration.learners
        if known is None:
            wanted.joiner = hello
            change = MembershipChange(add=(member,), joining=() if request.learner else (joining,))
            self._want(wanted, change, f"{request.name} was added as a learner")
        elif becomes_more and (asked_before is None or (replaced and asked_before != joining)):
            # It was added before, to stay a learner or to replace somebody else.
            change = MembershipChange(joining=(joining,), update=(member,))
            note = f"{request.name} becomes a voter as soon as it has caught up"
            self._want(wanted, change, note)
        elif known.address != request.address:
            change = MembershipChange(update=(member,))
            self._want(wanted, change, f"{request.name} is a member already; its address moved")
        else:
            self._is_so_already(wanted, f"{request.name} is a member already")

    def _leave(
        self, configuration: Configuration, wanted: _Wanted, request: protocol.Leave
    ) -> None:
        member = _by_name(configuration, request.name)
        if member is None:
            wanted.done(no_such_member(configuration, request.name))
            return
        change = MembershipChange(remove=(member.id,))
        note = f"{request.name} was removed; its id is refused from now on, its name is free"
        self._want(wanted, change, note)

    def _promote(
        self, configuration: Configuration, wanted: _Wanted, request: protocol.MemberPromote
    ) -> None:
        member = _by_name(configuration, request.name)
        if member is None:
            wanted.done(no_such_member(configuration, request.name))
        elif member.id in configuration.voters:
            self._is_so_already(wanted, f"{request.name} is a voter already")
        else:
            note = f"{request.name} becomes a voter as soon as it has caught up"
            if _joining(configuration, member.id) is not None:
                self._is_so_already(wanted, note)
            else:
                self._want(wanted, MembershipChange(joining=(Joining(member.id),)), note)

    def _update(
        self, configuration: Configuration, wanted: _Wanted, request: protocol.MemberUpdate
    ) -> None:
        member = _by_name(configuration, request.name)
        if member is None:
            wanted.done(no_such_member(configuration, request.name))
            return
        try:
            address = dial_address(request.address)
        except ValueError as error:
            hint = "Give it as HOST:PORT, as others dial it"
            wanted.done(Failure(ErrorCode.BAD_REQUEST, f"An address {error}", hint))
            return
        announced = self._transport.announced(member.id)
        if announced not in ("", address):
            what = f"{member.name} is there, and announces {announced} by itself"
            hint = "Set server.advertise_addr in its raft.toml, and restart it"
            wanted.done(Failure(ErrorCode.REFUSED, what, hint))
            return
        moved = Member(member.id, member.name, address)
        note = f"{request.name} is dialled at {address} from now on"
        self._want(wanted, MembershipChange(update=(moved,)), note)

    def hands_over_before(self, request: MembershipRequest) -> bool:
        """Whether this leader is the one that is to leave, and there is somebody to lead then."""
        configuration = self._node.configuration
        if configuration is None or not isinstance(request, protocol.Leave) or request.force:
            return False
        member = _by_name(configuration, request.name)
        is_own = member is not None and member.id == self._node.state.member_id
        return is_own and len(configuration.voters) > 1 and self._is_meant(request)

    def _is_meant(self, request: MembershipRequest) -> bool:
        """Whether the configuration in force is the one that `request` was made for."""
        return request.if_configuration in (0, self._node.configuration_index)

    # --- the core's answers

    def _want(self, wanted: _Wanted, change: MembershipChange, note: str) -> None:
        wanted.change, wanted.note = change, note
        self._ask(wanted)

    def _is_so_already(self, wanted: _Wanted, note: str) -> None:
        if self._is_meant(wanted.request):
            wanted.done(self.result(note))
        else:
            wanted.done(failure_of(RefusalReason.CONFIGURATION_MOVED, "", ""))

    def _ask(self, wanted: _Wanted) -> None:
        self._pausing.pop(wanted, None)
        # Each time: the cluster's version may have been raised while this waited its turn.
        problem = self._joiner_problem(wanted.joiner) if wanted.joiner is not None else None
        if problem is not None:
            wanted.done(problem)
            return
        tag = self._next_tag()
        self._wanted[tag] = wanted
        request = wanted.request
        force = isinstance(request, protocol.Leave) and request.force
        self._feed(ChangeMembership(tag, wanted.change, request.if_configuration, force))

    def owns(self, tag: int) -> bool:
        return tag in self._wanted

    def changed(self, answer: MembershipChanged) -> None:
        wanted = self._wanted.pop(answer.tag)
        wanted.done(self.result(wanted.note, answer.index))

    def refused(self, answer: Refused, failure: Failure) -> None:
        wanted = self._wanted.pop(answer.tag)
        if answer.reason in _PASSING and self._loop.time() < wanted.give_up_at:
            self._pausing[wanted] = self._loop.call_later(_RETRY_S, self._ask, wanted)
        else:
            wanted.done(failure)

    def result(self, note: str, index: int = 0) -> protocol.MembershipResult:
        """Who the members are now; `note` says what was done."""
        configuration = self._node.configuration
        listed = self._list()
        return protocol.MembershipResult(
            index=index or listed.configuration_index,
            warnings=protocol.voter_warnings(len(configuration.voters) if configuration else 0),
            members=listed.members,
            note=note,
            pending=listed.pending,
        )

    def give_up(self, failure: Failure) -> None:
        """The node ends or its disk failed; what is in the log may still come about."""
        self._given_up = failure
        joins, self._joins = self._joins, {}
        for task, done in joins.items():
            if task.cancel():
                done(failure)
        pausing, self._pausing = self._pausing, {}
        for entry, timer in pausing.items():
            timer.cancel()
            entry.done(failure)
        wanted, self._wanted = self._wanted, {}
        unknown = Failure(
            ErrorCode.UNKNOWN_OUTCOME,
            f"{failure.error}; the change may still come about",
            "See what became of it: raftctl member list",
        )
        for entry in wanted.values():
            entry.done(unknown)


def _problem(configuration: Configuration, request: protocol.Join, hello: Hello) -> Failure | None:
    """Why whoever answered can't be added under that name."""
    name, where = request.name, f"at {request.address}"
    known = _by_id(configuration, hello.member_id)
    namesake = _by_name(configuration, name)
    if hello.name != name:
        return Failure(
            ErrorCode.REFUSED,
            f"{hello.name} answers {where}, not {name}",
            f"Give it the name it has: raftctl join {hello.name} {request.address}",
        )
    if hello.cluster_id not in ("", configuration.cluster_id):
        return Failure(
            ErrorCode.REFUSED,
            f"{name} belongs to another cluster already: {hello.cluster_id}",
            "A node's data directory is its membership: give it an empty one to join this",
        )
    if hello.member_id in configuration.removed:
        return Failure(
            ErrorCode.REFUSED,
            f"The id of {name} was a member once and was removed; ids are refused for ever",
            "Stop it, empty its data directory, start it and ask again: it gets a new id",
        )
    if known is not None and not hello.cluster_id and hello.member_id in configuration.voters:
        return Failure(
            ErrorCode.REFUSED,
            f"{name} is a voter of this cluster but has no log: what it promised is gone",
            f"raftctl leave {name}; then empty its data directory, start it, and: "
            f"raftctl join {name} {request.address}",
        )
    if known is None and hello.cluster_id:
        return Failure(
            ErrorCode.REFUSED,
            f"{name} has a log of this cluster but is no member of it",
            "Stop it, empty its data directory, start it and ask again",
        )
    if known is None and namesake is not None:
        return Failure(
            ErrorCode.REFUSED,
            f"There is a member {name} already, with another id: the data directory {where} is new",
            f"If the old one is gone for good: raftctl leave {name}, then ask again",
        )
    return None


def _role_problem(
    configuration: Configuration, request: protocol.Join, member_id: int
) -> Failure | None:
    """Why it can't be the learner that is asked for, or take the place of `replace`. Who asks again
    for what has come about finds nobody any more to replace."""
    name = request.name
    replaced = _by_name(configuration, request.replace) if request.replace else None
    empty_it = "then empty its data directory, start it, and:"
    as_learner = f"raftctl leave {name}; {empty_it} raftctl join {name} {request.address} --learner"
    if replaced is not None and replaced.id == member_id:
        return Failure(
            ErrorCode.REFUSED,
            f"{name} can't take its own place",
            "Name the member that is to go: --replace NAME",
        )
    if member_id not in configuration.voters:
        if request.replace and replaced is None:
            return no_such_member(configuration, request.replace)
        if request.learner and _joining(configuration, member_id) is not None:
            what = f"{name} was asked for as a voter, and becomes one once it has caught up"
            return Failure(ErrorCode.REFUSED, what, as_learner)
        return None
    if request.learner:
        what = f"{name} is a voter, and voters don't become learners"
        return Failure(ErrorCode.REFUSED, what, as_learner)
    if replaced is not None and replaced.id in (*configuration.voters, *configuration.learners):
        return Failure(
            ErrorCode.REFUSED,
            f"{name} is a voter already, so {replaced.name} does not go in the same step",
            f"raftctl leave {replaced.name}",
        )
    return None


def _joining(configuration: Configuration, member_id: int) -> Joining | None:
    return next((entry for entry in configuration.joining if entry.id == member_id), None)


def membership_result(reply: bytes) -> protocol.MembershipResult | Failure:
    """What another member answered to such a request, from its encoded Reply."""
    try:
        answer = _REPLY.decode(reply)
        if answer.error is None:
            return _RESULT.decode(answer.result)
    except UNREADABLE as unreadable:
        what = f"The leader's answer can't be read: {unreadable}"
        return Failure(ErrorCode.UNKNOWN_OUTCOME, what, "See what came of it: raftctl member list")
    error = answer.error
    return Failure(error.code, error.error, error.hint, error.leader)


def _by_id(configuration: Configuration, member_id: int) -> Member | None:
    return next((m for m in configuration.members if m.id == member_id), None)


def _by_name(configuration: Configuration, name: str) -> Member | None:
    return next((m for m in configuration.members if m.name == name), None)
