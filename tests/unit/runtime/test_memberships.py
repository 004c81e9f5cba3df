"""Changes of the members as the leader carries them out: what is refused, and with which words."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from raft_agent.api import protocol
from raft_agent.api.host import Failure
from raft_agent.api.protocol import ErrorCode
from raft_agent.consensus.types import ChangeMembership, Joining, MembershipChange
from raft_agent.runtime.memberships import MembershipRequest
from raft_agent.transport.handshake import Hello
from tests.unit.runtime.jumping import run
from tests.unit.runtime.leading import CLUSTER, Leader, alone, configuration, hello, member

WHERE = member(4).address


def join(number: int = 4, **more: bool | str) -> protocol.Join:
    return protocol.Join(1, member(number).name, member(number).address, **more)  # type: ignore[arg-type]


async def joined(leader: Leader, request: protocol.Join, answers: Hello) -> str:
    """What is said when it works."""
    leader.network.answers[request.address] = answers
    done = await leader.ask(request)
    assert isinstance(done, protocol.MembershipResult), done
    return done.note


# --- join -----------------------------------------------------------------------------------------


def test_who_answers_becomes_a_learner_that_is_to_be_a_voter() -> None:
    async def test() -> None:
        leader = alone()
        assert await joined(leader, join(), hello(4)) == "node-04 was added as a learner"
        assert leader.configuration.learners == (4,)
        assert leader.configuration.joining == (Joining(4),)
        assert member(4) in leader.configuration.members

    run(test)


def test_who_runs_a_program_that_can_not_be_a_members_is_not_added() -> None:
    async def test() -> None:
        leader = alone()
        too_old = Failure(ErrorCode.REFUSED, "it knows version 1, and this cluster needs 2")
        leader.joiner_problem = lambda _: too_old
        leader.network.answers[WHERE] = hello(4)
        before = leader.configuration
        assert await leader.ask(join()) == too_old
        assert leader.configuration == before

    run(test)


def test_a_learner_for_good_joins_nothing_more() -> None:
    async def test() -> None:
        leader = alone()
        await joined(leader, join(learner=True), hello(4))
        assert (leader.configuration.learners, leader.configuration.joining) == ((4,), ())

    run(test)


def test_whom_it_replaces_goes_when_it_becomes_a_voter() -> None:
    async def test() -> None:
        leader = Leader(configuration((1, 2, 3)))
        await joined(leader, join(replace="node-02"), hello(4))
        assert leader.configuration.joining == (Joining(4, 2),)
        assert leader.configuration.voters == (1, 2, 3)

    run(test)


def test_asking_again_changes_nothing_and_succeeds() -> None:
    async def test() -> None:
        leader = alone()
        await joined(leader, join(), hello(4))
        before = leader.server.node.configuration_index
        for cluster_id in ("", CLUSTER):
            note = await joined(leader, join(), hello(4, cluster_id=cluster_id))
            assert note == "node-04 is a member already"
        assert leader.server.node.configuration_index == before

    run(test)


def test_asking_again_for_a_replacement_that_has_come_about_succeeds() -> None:
    async def test() -> None:
        leader = Leader(configuration((1, 3, 4)))
        request = join(replace="node-02")
        note = await joined(leader, request, hello(4, cluster_id=CLUSTER))
        assert note == "node-04 is a member already"

    run(test)


def test_asking_again_while_a_replacement_goes_on_leaves_it_as_it_is() -> None:
    async def test() -> None:
        leader = Leader(configuration((1, 2, 3)))
        for request in (join(replace="node-02"), join(replace="node-02"), join()):
            await joined(leader, request, hello(4))
            assert leader.configuration.joining == (Joining(4, 2),)
        await leader.ask(protocol.MemberPromote(1, "node-04"))
        assert leader.configuration.joining == (Joining(4, 2),)
        await joined(leader, join(replace="node-03"), hello(4))
        assert leader.configuration.joining == (Joining(4, 3),)
        # The joint configuration, in which whom it replaces is still a member on its way out.
        promoted = MembershipChange(promote=(4,), remove=(3,))
        leader.are_awake = False
        leader.server.node.progress[4].had_entries = True
        leader.feed(ChangeMembership(1 << 40, promoted, force=True))
        assert leader.configuration.voters == (1, 2, 4)
        assert member(3) in leader.configuration.members
        note = await joined(leader, join(replace="node-03"), hello(4, cluster_id=CLUSTER))
        assert note == "node-04 is a member already"

    run(test)


def test_a_learner_that_is_to_become_a_voter_is_not_asked_for_as_one_for_good() -> None:
    async def test() -> None:
        leader = alone()
        await joined(leader, join(), hello(4))
        refused = await leader.refusal(join(learner=True))
        assert refused.error.startswith("node-04 was asked for as a voter")

    run(test)


def test_a_member_that_joins_from_elsewhere_is_dialled_there() -> None:
    async def test() -> None:
        leader = alone(learners=(4,))
        request = protocol.Join(1, "node-04", "10.9.9.9:5555", learner=True)
        note = await joined(leader, request, hello(4, cluster_id=CLUSTER))
        assert note == "node-04 is a member already; its address moved"
        assert leader.configuration.members[1].address == "10.9.9.9:5555"

    run(test)


def test_a_learner_that_is_asked_to_join_is_to_become_a_voter() -> None:
    """It was added to stay a learner, and somebody has thought better of it."""

    async def test() -> None:
        leader = alone(learners=(4,))
        note = await joined(leader, join(), hello(4, cluster_id=CLUSTER))
        assert note == "node-04 becomes a voter as soon as it has caught up"
        assert leader.configuration.joining == (Joining(4),)

    run(test)


ELSEWHERE = "d2" * 16
REFUSALS = [
    # (who asks for what, who answers, the error, what the hint says to do)
    (join(), None, f"No agent answers at {WHERE}: cannot connect", "Start the agent of node-04"),
    (
        join(),
        hello(4, name="other"),
        f"other answers at {WHERE}, not node-04",
        f"raftctl join other {WHERE}",
    ),
    (
        join(),
        hello(4, cluster_id=ELSEWHERE),
        f"node-04 belongs to another cluster already: {ELSEWHERE}",
        "give it an empty one",
    ),
    (join(99), hello(99), "The id of node-99 was a member once and was removed", "empty its data"),
    (
        join(99),
        hello(99, cluster_id=CLUSTER),
        "The id of node-99 was a member once and was removed",
        "empty its data directory",
    ),
    (
        join(2),
        hello(2),
        "node-02 is a voter of this cluster but has no log: what it promised is gone",
        "raftctl leave node-02; then empty its data directory",
    ),
    (
        join(),
        hello(4, cluster_id=CLUSTER),
        "node-04 has a log of this cluster but is no member of it",
        "empty its data directory",
    ),
    (
        join(2),
        hello(5, name="node-02"),
        "There is a member node-02 already, with another id",
        "raftctl leave node-02, then ask again",
    ),
    (join(replace="nobody"), hello(4), "nobody is no member", "node-01, node-02, node-03"),
    (
        join(2, replace="node-03"),
        hello(2, cluster_id=CLUSTER),
        "node-02 is a voter already, so node-03 does not go in the same step",
        "raftctl leave node-03",
    ),
    (
        join(2, replace="node-02"),
        hello(2, cluster_id=CLUSTER),
        "node-02 can't take its own place",
        "--replace NAME",
    ),
    (
        join(2, learner=True),
        hello(2, cluster_id=CLUSTER),
        "node-02 is a voter, and voters don't become learners",
        f"raftctl join node-02 {member(2).address} --learner",
    ),
    (
        protocol.Join(1, "node-04", member(2).address),
        hello(4),
        "Another member has this address",
        "raftctl member list",
    ),
]


@pytest.mark.parametrize(
    ("case"), REFUSALS, ids=[f"{case[2][:40]}-{number}" for number, case in enumerate(REFUSALS)]
)
def test_who_can_not_be_added_is_refused_with_the_reason_and_what_to_do(
    case: tuple[protocol.Join, Hello | None, str, str],
) -> None:
    request, answers, error, hint = case

    async def test() -> None:
        leader = Leader(configuration((1, 2, 3)))
        if answers is not None:
            leader.network.answers[request.address] = answers
        refused = await leader.refusal(request)
        assert refused.error.startswith(error)
        assert hint in refused.hint

    run(test)


def test_a_leader_that_lost_the_lead_while_it_dialled_adds_nobody() -> None:
    async def test() -> None:
        leader = alone()
        leader.network.answers[WHERE] = hello(4)
        asked = asyncio.ensure_future(leader.refusal(join()))
        await asyncio.sleep(0)
        leader.server.node.state.become_follower(leader.server.node.current_term, 0)
        assert (await asked).code is ErrorCode.NOT_LEADER

    run(test)


# --- leave, promote, update -----------------------------------------------------------------------


def test_a_member_that_leaves_is_refused_from_then_on() -> None:
    async def test() -> None:
        leader = Leader(configuration((1, 2, 3)))
        done = await leader.ask(protocol.Leave(1, "node-03"))
        assert isinstance(done, protocol.MembershipResult)
        assert done.note == "node-03 was removed; its id is refused from now on, its name is free"
        assert done.warnings == protocol.voter_warnings(2)
        assert [item.name for item in done.members] == ["node-01", "node-02"]
        assert done.index == leader.server.node.configuration_index
        assert leader.configuration.removed == (3, 99)

    run(test)


def test_a_change_that_would_cost_the_quorum_is_refused_unless_it_is_forced() -> None:
    async def test() -> None:
        leader = Leader(configuration((1, 2, 3)))
        leader.are_awake = False
        leader.server.now_us += 10_000_000
        refused = await leader.refusal(protocol.Leave(1, "node-03"))
        assert refused.code is ErrorCode.QUORUM_AT_RISK
        assert "--force" in refused.hint
        leader.are_awake = True
        done = await leader.ask(protocol.Leave(1, "node-03", force=True))
        assert isinstance(done, protocol.MembershipResult)
        assert leader.configuration.voters == (1, 2)

    run(test)


def test_the_last_voter_stays() -> None:
    async def test() -> None:
        leader = alone(learners=(4,))
        refused = await leader.refusal(protocol.Leave(1, "node-01", force=True))
        assert refused.error == "It is the only voter: without it there is no cluster"

    run(test)


@pytest.mark.parametrize(
    "request_",
    [
        protocol.Leave(1, "nobody"),
        protocol.MemberPromote(1, "nobody"),
        protocol.MemberUpdate(1, "nobody", WHERE),
    ],
)
def test_who_is_no_member_is_answered_with_those_who_are(
    request_: protocol.Leave | protocol.MemberPromote | protocol.MemberUpdate,
) -> None:
    async def test() -> None:
        refused = await alone(learners=(4,)).refusal(request_)
        assert refused.code is ErrorCode.NO_SUCH_MEMBER
        assert (refused.error, refused.hint) == (
            "nobody is no member",
            "The members are: node-01, node-04",
        )

    run(test)


def test_promoting_marks_a_learner_and_leaves_a_voter_as_it_is() -> None:
    async def test() -> None:
        leader = alone(learners=(4,))
        done = await leader.ask(protocol.MemberPromote(1, "node-04"))
        assert isinstance(done, protocol.MembershipResult)
        assert done.note == "node-04 becomes a voter as soon as it has caught up"
        assert leader.configuration.joining == (Joining(4),)
        again = await leader.ask(protocol.MemberPromote(1, "node-01"))
        assert isinstance(again, protocol.MembershipResult)
        assert again.note == "node-01 is a voter already"

    run(test)


def test_an_update_moves_a_member_unless_another_has_the_address() -> None:
    async def test() -> None:
        leader = alone(learners=(4,))
        done = await leader.ask(protocol.MemberUpdate(1, "node-04", "10.9.9.9:5555"))
        assert isinstance(done, protocol.MembershipResult)
        assert done.note == "node-04 is dialled at 10.9.9.9:5555 from now on"
        taken = protocol.MemberUpdate(1, "node-04", member(1).address)
        assert (await leader.refusal(taken)).error == "Another member has this address"

    run(test)


def test_a_member_that_announces_where_it_is_is_not_said_to_be_elsewhere() -> None:
    """Its next announcement would undo the change at once."""

    async def test() -> None:
        leader = alone(learners=(4,))
        leader.network.connected[4] = "10.8.8.8:5555"
        refused = await leader.refusal(protocol.MemberUpdate(1, "node-04", "10.9.9.9:5555"))
        assert refused.error == "node-04 is there, and announces 10.8.8.8:5555 by itself"
        assert "server.advertise_addr" in refused.hint
        done = await leader.ask(protocol.MemberUpdate(1, "node-04", "10.8.8.8:5555"))
        assert isinstance(done, protocol.MembershipResult)

    run(test)


def test_only_a_leader_that_leaves_unforced_with_others_there_hands_over_first() -> None:
    async def test() -> None:
        leader = Leader(configuration((1, 2, 3)))
        hands_over = leader.memberships.hands_over_before
        assert hands_over(protocol.Leave(1, "node-01"))
        assert not hands_over(protocol.Leave(1, "node-01", force=True))
        assert not hands_over(protocol.Leave(1, "node-02"))
        assert not hands_over(protocol.Leave(1, "node-01", if_configuration=1000))
        assert not hands_over(protocol.Leave(1, "nobody"))
        assert not hands_over(protocol.MemberUpdate(1, "node-01", WHERE))
        assert not alone().memberships.hands_over_before(protocol.Leave(1, "node-01"))

    run(test)


@pytest.mark.parametrize(
    "request_",
    [
        join(),
        join(2),
        protocol.Leave(1, "node-03"),
        protocol.MemberPromote(1, "node-02"),
        protocol.MemberUpdate(1, "node-02", "10.9.9.9:5555"),
    ],
)
def test_what_was_meant_for_another_configuration_is_refused(request_: MembershipRequest) -> None:
    async def test() -> None:
        leader = Leader(configuration((1, 2, 3)))
        leader.network.answers[WHERE] = hello(4)
        leader.network.answers[member(2).address] = hello(2, cluster_id=CLUSTER)
        index = leader.server.node.configuration_index
        moved = msgspec.structs.replace(request_, if_configuration=index + 1)
        assert (await leader.refusal(moved)).code is ErrorCode.CONFLICT
        meant = msgspec.structs.replace(request_, if_configuration=index)
        assert isinstance(await leader.ask(meant), protocol.MembershipResult)

    run(test)


# --- one change at a time -------------------------------------------------------------------------


def test_a_change_waits_for_the_one_before_it() -> None:
    async def test() -> None:
        leader = Leader(configuration((1, 2, 3)))
        leader.are_awake = False
        moved = MembershipChange(update=(member(2),), add=(member(5),))
        leader.feed(ChangeMembership(1 << 40, moved))
        asked = asyncio.ensure_future(leader.ask(protocol.Leave(1, "node-03")))
        await asyncio.sleep(1)
        assert not asked.done()
        leader.are_awake = True
        leader.memberships.changed = lambda _answer: None  # type: ignore[method-assign]
        leader.acknowledge()
        del leader.memberships.changed
        done = await asked
        assert isinstance(done, protocol.MembershipResult)
        assert leader.configuration.voters == (1, 2)

    run(test)


def test_a_change_that_waits_too_long_is_refused() -> None:
    async def test() -> None:
        leader = Leader(configuration((1, 2, 3)))
        leader.are_awake = False
        leader.feed(ChangeMembership(1 << 40, MembershipChange(add=(member(5),))))
        refused = await leader.refusal(protocol.Leave(1, "node-03"))
        assert refused.code is ErrorCode.CHANGE_PENDING

    run(test)


def test_a_node_that_ends_leaves_open_what_becomes_of_a_change() -> None:
    async def test() -> None:
        leader = Leader(configuration((1, 2, 3)))
        leader.are_awake = False
        asked = asyncio.ensure_future(leader.ask(protocol.MemberUpdate(1, "node-02", WHERE)))
        await asyncio.sleep(0)
        stopping = Failure(ErrorCode.SHUTTING_DOWN, "The agent is stopping")
        leader.memberships.give_up(stopping)
        answer = await asked
        assert isinstance(answer, Failure)
        assert answer.code is ErrorCode.UNKNOWN_OUTCOME
        assert await leader.ask(protocol.Leave(1, "node-03")) == stopping

    run(test)


def test_a_change_that_waits_its_turn_when_the_node_ends_has_not_happened() -> None:
    async def test() -> None:
        leader = Leader(configuration((1, 2, 3)))
        leader.are_awake = False
        leader.feed(ChangeMembership(1 << 40, MembershipChange(add=(member(5),))))
        asked = asyncio.ensure_future(leader.ask(protocol.Leave(1, "node-03")))
        await asyncio.sleep(0.01)
        stopping = Failure(ErrorCode.SHUTTING_DOWN, "The agent is stopping")
        leader.memberships.give_up(stopping)
        assert await asyncio.wait_for(asked, 0.01) == stopping

    run(test)


def test_a_join_that_still_dials_when_the_node_ends_is_answered() -> None:
    async def test() -> None:
        leader = alone()
        asked = asyncio.ensure_future(leader.ask(join()))
        await asyncio.sleep(0)
        leader.memberships.give_up(Failure(ErrorCode.SHUTTING_DOWN, "The agent is stopping"))
        answer = await asyncio.wait_for(asked, 1)
        assert isinstance(answer, Failure)
        assert answer.code is ErrorCode.SHUTTING_DOWN

    run(test)
