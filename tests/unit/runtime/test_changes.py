"""Who carries out a change of the members, and what whoever asked is told when the lead moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from raft_agent.api import protocol
from raft_agent.api.host import Failure
from raft_agent.api.protocol import ErrorCode
from raft_agent.consensus.types import ChangeMembership, MembershipChange
from raft_agent.runtime.changes import Changes, Request
from raft_agent.runtime.joining import Doorkeeper, proof
from raft_agent.transport.handshake import Hello
from tests.unit.runtime.jumping import run
from tests.unit.runtime.leading import Leader, alone, configuration, hello, member

TOKEN = "known to all members"
LEAVE = protocol.Leave(1, "node-02")

NOT_LEADER = Failure(ErrorCode.NOT_LEADER, "Not leader", leader="node-03")
NO_LEADER = Failure(ErrorCode.NO_LEADER, "There is no leader")
LOST = Failure(ErrorCode.UNKNOWN_OUTCOME, "The leader did not answer")
NO_SUCH = Failure(ErrorCode.NO_SUCH_MEMBER, "node-02 is no member")
REFUSED = Failure(ErrorCode.REFUSED, "It does not go", "Do this")
DONE = protocol.MembershipResult(7, [], [], "done")

Answer = protocol.MembershipResult | Failure


def encoded(answer: Answer) -> bytes | Failure:
    """What the host gives for the leader's answer; failures of the way come as they are."""
    if answer in (LOST, NO_LEADER):
        assert isinstance(answer, Failure)
        return answer
    if isinstance(answer, Failure):
        error = protocol.Error(answer.error, answer.code, answer.hint, answer.leader)
        return protocol.ENCODER.encode(protocol.Reply(1, error))
    raw = msgspec.Raw(protocol.ENCODER.encode(answer))
    return protocol.ENCODER.encode(protocol.Reply(1, None, raw))


class Node:
    """A node before a real leader's memberships. `leads`: whether it is the leader; else `answers`
    come from where it passes requests on, the last one again and again.
    """

    def __init__(self, leader: Leader, *answers: Answer, leads: bool = False) -> None:
        self.leader = leader
        self.leads = leads
        self.answers = list(answers)
        self.forwarded: list[protocol.Request] = []
        self.handed_over = 0
        self.transfer: str | Failure = "node-03"
        self._loop = asyncio.get_running_loop()
        self.doorkeeper = Doorkeeper(TOKEN, self._loop.time)
        self.changes = Changes(
            self,  # type: ignore[arg-type]
            leader.memberships,
            self.doorkeeper,
            self._loop,
        )

    def is_leader(self) -> bool:
        return self.leads

    def why_not_leading(self) -> Failure:
        return NOT_LEADER

    def forward(self, request: protocol.Request, done: Callable[[bytes | Failure], None]) -> None:
        self.forwarded.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self._loop.call_soon(done, encoded(answer))

    def transfer_leadership(self, _target: str, done: Callable[[str | Failure], None]) -> None:
        self.handed_over += 1
        if isinstance(self.transfer, str):
            self.leads = False
        self._loop.call_soon(done, self.transfer)

    async def ask(self, request: Request, *, may_forward: bool = True) -> Answer:
        told: asyncio.Future[Answer] = self._loop.create_future()
        self.changes.change(request, told.set_result, may_forward=may_forward)
        return await told


def test_a_leader_does_it_itself() -> None:
    async def test() -> None:
        node = Node(Leader(configuration((1, 2, 3))), REFUSED, leads=True)
        for may_forward in (True, False):
            update = protocol.MemberUpdate(1, "node-02", f"10.9.9.9:{5555 + may_forward}")
            done = await node.ask(update, may_forward=may_forward)
            assert isinstance(done, protocol.MembershipResult)
        assert node.forwarded == []

    run(test)


def test_a_follower_has_the_leader_do_it_for_a_client_and_refuses_another_node() -> None:
    async def test() -> None:
        node = Node(alone(), DONE)
        assert await node.ask(LEAVE) == DONE
        assert node.forwarded == [LEAVE]
        refused = await node.ask(LEAVE, may_forward=False)
        assert isinstance(refused, Failure)
        assert (refused.code, refused.leader) == (ErrorCode.NOT_LEADER, "node-03")
        assert node.forwarded == [LEAVE]

    run(test)


def test_whoever_leads_meanwhile_is_asked_again() -> None:
    async def test() -> None:
        node = Node(alone(), NOT_LEADER, NO_LEADER, NOT_LEADER, DONE)
        assert await node.ask(LEAVE) == DONE
        assert node.forwarded == [LEAVE] * 4

    run(test)


def test_a_node_that_leads_by_the_second_time_does_it_itself() -> None:
    async def test() -> None:
        node = Node(Leader(configuration((1, 2, 3))), NO_LEADER)
        asked = asyncio.ensure_future(node.ask(LEAVE))
        while not node.forwarded:
            await asyncio.sleep(0)
        node.leads = True
        done = await asked
        assert isinstance(done, protocol.MembershipResult)
        assert node.leader.configuration.voters == (1, 3)

    run(test)


def test_without_a_leader_it_is_given_up_before_a_client_gives_up_waiting() -> None:
    """raftctl waits five seconds, and could not say then that nothing was changed."""

    async def test() -> None:
        node = Node(alone(), NO_LEADER)
        assert await asyncio.wait_for(node.ask(LEAVE), 4) == NO_LEADER

    run(test)


def test_a_refusal_is_passed_on_at_once() -> None:
    async def test() -> None:
        node = Node(alone(), REFUSED)
        assert await node.ask(LEAVE) == REFUSED
        assert node.forwarded == [LEAVE]

    run(test)


def test_a_leave_whose_answer_was_lost_is_done_when_there_is_no_such_member_any_more() -> None:
    async def test() -> None:
        node = Node(alone(), LOST, NO_SUCH)
        done = await node.ask(LEAVE)
        assert isinstance(done, protocol.MembershipResult)
        assert done.note == "node-02 was removed"

    run(test)


def test_without_a_lost_answer_no_such_member_is_a_refusal() -> None:
    async def test() -> None:
        assert await Node(alone(), NOT_LEADER, NO_SUCH).ask(LEAVE) == NO_SUCH

    run(test)


def test_any_other_refusal_after_a_lost_answer_leaves_the_outcome_open() -> None:
    async def test() -> None:
        for request in (LEAVE, protocol.Join(1, "node-02", "10.0.0.2:5555")):
            refusal = REFUSED if request is LEAVE else NO_SUCH
            open_ = await Node(alone(), LOST, NOT_LEADER, refusal).ask(request)
            assert isinstance(open_, Failure)
            assert open_.code is ErrorCode.UNKNOWN_OUTCOME
            assert refusal.error in open_.error
            assert open_.hint == "See what became of it: raftctl member list"

    run(test)


def test_answers_that_are_lost_again_and_again_leave_the_outcome_open() -> None:
    async def test() -> None:
        node = Node(alone(), LOST)
        assert await asyncio.wait_for(node.ask(LEAVE), 4) == LOST
        assert len(node.forwarded) > 1

    run(test)


def test_dialling_and_waiting_together_take_no_longer_than_a_client_waits() -> None:
    async def test() -> None:
        leader = Leader(configuration((1, 2, 3)))
        node = Node(leader, DONE, leads=True)
        loop = asyncio.get_running_loop()

        async def probe(_address: str, timeout_s: float) -> Hello:
            await asyncio.sleep(timeout_s)
            return hello(4)

        leader.network.probe = probe  # type: ignore[method-assign]
        leader.are_awake = False
        leader.feed(ChangeMembership(1 << 40, MembershipChange(add=(member(5),))))
        began = loop.time()
        refused = await node.ask(protocol.Join(1, "node-04", member(4).address))
        assert isinstance(refused, Failure)
        assert refused.code is ErrorCode.CHANGE_PENDING
        assert loop.time() - began < 4

    run(test)


# --- a node that ends -----------------------------------------------------------------------------

STOPPING = Failure(ErrorCode.SHUTTING_DOWN, "The agent is stopping")


def test_a_node_that_ends_asks_nobody_again() -> None:
    async def test() -> None:
        for lost in (NO_LEADER, LOST):
            node = Node(alone(), lost)
            asked = asyncio.ensure_future(node.ask(LEAVE))
            await asyncio.sleep(0.01)
            node.changes.give_up(STOPPING)
            answer = await asyncio.wait_for(asked, 0.01)
            assert isinstance(answer, Failure)
            unknown = ErrorCode.UNKNOWN_OUTCOME
            assert answer.code is (unknown if lost is LOST else STOPPING.code)
            assert node.forwarded == [LEAVE]

    run(test)


def test_a_change_that_was_under_way_when_the_node_ends_is_not_tried_again() -> None:
    async def test() -> None:
        node = Node(Leader(configuration((1, 2, 3))), DONE, leads=True)
        node.leader.are_awake = False
        asked = asyncio.ensure_future(node.ask(LEAVE))
        await asyncio.sleep(0)
        node.leads = False
        node.changes.give_up(STOPPING)
        node.leader.memberships.give_up(STOPPING)
        answer = await asked
        assert isinstance(answer, Failure)
        assert answer.code is ErrorCode.UNKNOWN_OUTCOME
        assert node.forwarded == []

    run(test)


# --- a leader that leaves -------------------------------------------------------------------------


def test_a_leader_that_leaves_hands_over_and_has_the_next_one_remove_it() -> None:
    async def test() -> None:
        node = Node(Leader(configuration((1, 2, 3))), DONE, leads=True)
        leave = protocol.Leave(1, "node-01")
        assert await node.ask(leave) == DONE
        assert (node.handed_over, node.forwarded) == (1, [leave])

    run(test)


def test_a_leader_that_leaves_sends_another_node_to_the_next_one() -> None:
    async def test() -> None:
        node = Node(Leader(configuration((1, 2, 3))), DONE, leads=True)
        sent_on = await node.ask(protocol.Leave(1, "node-01"), may_forward=False)
        assert isinstance(sent_on, Failure)
        assert (sent_on.code, sent_on.leader) == (ErrorCode.NOT_LEADER, "node-03")

    run(test)


def test_a_leader_that_can_not_hand_over_stays_and_says_why() -> None:
    async def test() -> None:
        node = Node(Leader(configuration((1, 2, 3))), DONE, leads=True)
        node.transfer = Failure(ErrorCode.TIMED_OUT, "The target did not take over in time")
        assert await node.ask(protocol.Leave(1, "node-01")) == node.transfer
        assert 1 in node.leader.configuration.voters

    run(test)


# --- a new node that asks by itself ---------------------------------------------------------------


def asking(node: Node, token: str) -> protocol.JoinSelf:
    nonce = node.doorkeeper.challenge()
    shown = proof(token, nonce, "node-04", member(4).address)
    return protocol.JoinSelf(1, "node-04", member(4).address, nonce, shown)


def test_who_knows_the_token_is_joined_by_whoever_leads() -> None:
    async def test() -> None:
        node = Node(alone(), DONE)
        assert await node.ask(asking(node, TOKEN), may_forward=False) == DONE
        assert node.forwarded == [protocol.Join(1, "node-04", member(4).address)]
        node.leads = True
        node.leader.network.answers[member(4).address] = hello(4)
        done = await node.ask(asking(node, TOKEN), may_forward=False)
        assert isinstance(done, protocol.MembershipResult)
        assert node.leader.configuration.learners == (4,)

    run(test)


def test_who_does_not_know_the_token_reaches_no_leader() -> None:
    async def test() -> None:
        node = Node(alone(), DONE)
        refused = await node.ask(asking(node, "another than theirs"), may_forward=False)
        assert isinstance(refused, Failure)
        assert refused.code is ErrorCode.REFUSED
        assert node.forwarded == []

    run(test)


def test_an_agent_looks_for_a_leader_no_longer_than_it_was_asked_to() -> None:
    """Who waits for two seconds must hear that nothing has changed before they are over."""

    async def test() -> None:
        loop = asyncio.get_running_loop()
        node = Node(alone(), NO_LEADER)
        began = loop.time()
        assert await node.ask(msgspec.structs.replace(LEAVE, patience_ms=1_200)) == NO_LEADER
        assert 1.2 <= loop.time() - began < 1.3
        left_ms = [request.patience_ms for request in node.forwarded]
        assert left_ms == sorted(left_ms, reverse=True)
        assert left_ms[0] in (1_199, 1_200)
        assert 1 <= left_ms[-1] <= 50

    run(test)
