"""A new generation of one survivor: where it may begin, what it begins with, who is told what."""

from __future__ import annotations

import pytest

from raft_agent.consensus import changes
from raft_agent.consensus.generations import FIRST, Kinship, generation_of, is_awaited, kinship
from raft_agent.consensus.membership import first_entry
from raft_agent.consensus.recovery import judge
from raft_agent.consensus.types import (
    Abandon,
    AppendEntries,
    BootstrapAnswer,
    BootstrapInstall,
    ChangeMembership,
    Configuration,
    ConfigurationChanged,
    Generation,
    Heartbeat,
    Member,
    MembershipChange,
    PreVote,
    PreVoteReply,
    Recover,
    Recovered,
    RefusalReason,
    Refused,
    Role,
    Standing,
    StorageFailed,
    Superseded,
    Survivor,
    Vote,
)
from tests.unit.consensus.server import (
    MAX_TIMEOUT_US,
    MIN_TIMEOUT_US,
    Server,
    configuration_of,
    log_of,
    notes,
    of,
    sends,
)

LATER = 0xBEEF
BACK = Member(12, "n2", "n2:6666")


def survivor(
    member_id: int,
    last: tuple[int, int],
    *,
    generation: int = 0,
    is_able: bool = True,
    knows_leader: bool = False,
) -> Survivor:
    standing = Standing(generation, *last, is_able, knows_leader)
    return Survivor(member_id, f"n{member_id}", f"n{member_id}:5555", standing)


def alone(size: int = 5, *terms: int) -> Server:
    """Member 1, which has heard of no leader for long."""
    server = Server(size=size, log=log_of(*(terms or (1, 2, 2)), size=size))
    server.tick()
    server.now_us += MAX_TIMEOUT_US
    server.tick()
    assert server.node.leader_id == 0
    return server


def recover(server: Server, *survivors: Survivor, floor: int = 0) -> RefusalReason | int:
    """The reason why not, or the entry with which the generation begins."""
    effects = server.step(Recover(7, LATER, survivors, floor))
    for answer in of(Refused, effects):
        assert answer.tag == 7
        return answer.reason
    (done,) = of(Recovered, effects)
    assert done.tag == 7
    return done.index


def test_the_survivor_goes_on_alone_with_all_that_its_log_holds() -> None:
    server = alone()
    entries = list(server.disk)
    assert recover(server, floor=99) == 4
    assert server.disk[:3] == entries
    server.tick()
    node = server.node
    assert node.role is Role.LEADER
    assert node.commit_index == node.log.last_index == 5
    configuration = node.configuration
    assert configuration is not None
    assert (configuration.voters, configuration.removed) == ((1,), (2, 3, 4, 5))
    assert generation_of(configuration) == Generation(LATER, (0,), (), 99)


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ([survivor(2, (2, 3))], None),
        ([survivor(2, (2, 4))], RefusalReason.RECOVER_ELSEWHERE),
        ([survivor(2, (3, 2))], RefusalReason.RECOVER_ELSEWHERE),
        ([survivor(2, (2, 2)), survivor(3, (1, 9))], RefusalReason.QUORUM_ANSWERS),
        ([survivor(2, (2, 2)), survivor(3, (2, 2), is_able=False)], None),
        ([survivor(2, (9, 9), is_able=False)], None),
        ([survivor(2, (2, 2), knows_leader=True)], RefusalReason.LEADER_KNOWN),
        ([survivor(2, (1, 1), generation=5)], RefusalReason.OTHER_GENERATION),
        ([survivor(9, (9, 9))], None),
    ],
    ids=[
        "as much as it has",
        "a longer log",
        "a shorter log of a later term",
        "three of five answer",
        "of the three one has a broken disk",
        "the best has a broken disk",
        "another one knows a leader",
        "another one was recovered",
        "a stranger",
    ],
)
def test_where_a_recovery_may_begin(others: list[Survivor], reason: RefusalReason | None) -> None:
    outcome = recover(alone(), *others)
    assert outcome == (4 if reason is None else reason)


def test_a_refusal_names_the_survivor_with_the_most_complete_log_and_changes_nothing() -> None:
    server = alone()
    before = list(server.disk), server.disk_vote
    others = (survivor(2, (2, 7)), survivor(3, (2, 9), is_able=False))
    effects = server.step(Recover(7, LATER, others, 0))
    assert [refused.leader for refused in of(Refused, effects)] == [2]
    assert (server.disk, server.disk_vote) == before


def test_who_heard_a_leader_a_moment_ago_does_not_recover() -> None:
    server = Server(size=3)
    server.receive(2, Heartbeat(1, 1, 1, 1, 1))
    assert recover(server) is RefusalReason.LEADER_KNOWN
    # One that has just started may have promised a leader not to vote.
    assert recover(Server(size=3)) is RefusalReason.LEADER_KNOWN


def test_a_broken_disk_a_fresh_node_and_a_removed_one_do_not_recover() -> None:
    broken = alone()
    broken.step(StorageFailed("it is broken"))
    assert recover(broken) is RefusalReason.STORAGE_FAILED
    fresh = Server(log=[], peer_names=("n1", "n2"))
    assert recover(fresh) is RefusalReason.FRESH
    removed = alone()
    removed.step(Superseded(2, 5, False))
    assert recover(removed) is RefusalReason.REMOVED


def test_who_has_another_state_than_a_quorum_had_is_rebuilt_before_it_recovers() -> None:
    server = alone()
    server.node.state.diverged_index = 2
    assert judge(server.node.state, ()).refusal is RefusalReason.STATE_DIFFERS
    assert recover(server) is RefusalReason.STATE_DIFFERS
    server.start()
    server.tick()
    server.now_us += MAX_TIMEOUT_US
    server.tick()
    assert recover(server) == 4


def test_a_learner_with_the_most_complete_log_becomes_the_only_voter() -> None:
    members = configuration_of(3)
    learner = Configuration("c1", members.members, (2, 3), learners=(1,))
    log = log_of(1, 2, size=3)
    log[0] = first_entry(learner)
    server = Server(log=log)
    server.tick()
    server.now_us += MAX_TIMEOUT_US
    server.tick()
    assert recover(server, survivor(2, (1, 1))) == 3
    server.tick()
    assert server.node.role is Role.LEADER


def test_the_generation_shows_itself_only_once_it_is_on_disk() -> None:
    server = alone()
    server.writes = False
    effects = server.step(Recover(7, LATER, (), 0))
    assert of(ConfigurationChanged, effects)
    assert not of(Recovered, effects)
    assert server.node.generation == FIRST
    # Neither does it lead before, nor listen to whom it is about to leave.
    server.tick()
    assert server.node.role is Role.FOLLOWER
    assert not sends(PreVoteReply, server.receive(2, PreVote(99, 1, 99, 99)))
    server.receive(2, AppendEntries(99, 1, 1, 0, 0, 0, ()))
    assert server.node.current_term < 99
    assert recover_again(server) is RefusalReason.RECOVERY_PENDING
    assert of(Recovered, server.write_log())
    assert server.node.generation.id == LATER


def recover_again(server: Server) -> RefusalReason:
    (refused,) = of(Refused, server.step(Recover(8, LATER + 2, (), 0)))
    return refused.reason


@pytest.mark.parametrize("is_written", [False, True])
def test_a_crash_leaves_the_old_generation_or_the_new_one(is_written: bool) -> None:
    server = alone()
    server.writes = False
    server.step(Recover(7, LATER, (), 0))
    if is_written:
        server.write_log()
    server.writes = True
    server.start()
    assert server.node.generation.id == (LATER if is_written else 0)
    server.tick()
    assert (server.node.role is Role.LEADER) == is_written
    if not is_written:
        server.now_us += MAX_TIMEOUT_US
        server.tick()
        assert recover(server) == 4


def test_survivors_are_awaited_under_the_addresses_at_which_they_answered() -> None:
    server = alone()
    moved = Survivor(3, "n3", "elsewhere:1", Standing(0, 1, 1, True, False))
    recover(server, moved, survivor(2, (1, 1), is_able=False))
    generation = server.node.generation
    assert [(m.id, m.name, m.address) for m in generation.awaited] == [
        (2, "n2", "n2:5555"),
        (3, "n3", "elsewhere:1"),
    ]
    assert is_awaited(generation, 3)
    assert not is_awaited(generation, 4)


def test_who_comes_in_again_is_no_longer_awaited() -> None:
    server = alone()
    recover(server, survivor(2, (1, 1)), survivor(3, (1, 1), is_able=False))
    configuration = server.node.configuration
    assert configuration is not None
    back = changes.change(configuration, MembershipChange(add=(BACK,)))
    assert [member.name for member in generation_of(back).awaited] == ["n3"]
    assert generation_of(back).id == LATER


def test_who_comes_in_again_gets_a_snapshot_and_never_the_old_beginning() -> None:
    server = alone()
    recover(server, survivor(2, (1, 1)))
    server.tick()
    change = MembershipChange(add=(BACK,))
    server.step(ChangeMembership(3, change))
    answer = BootstrapAnswer(0, 0, "n2", "n2:6666", (), True, 77, "")
    effects = server.receive(12, answer)
    assert not sends(BootstrapInstall, effects)
    assert "snapshot_wanted" in notes(effects)
    server.take_snapshot()
    assert "snapshot_offered" in notes(server.receive(12, answer))


def test_a_second_recovery_goes_back_to_both_generations_before() -> None:
    server = alone()
    recover(server, floor=50)
    server.tick()
    server.start()
    server.now_us += MIN_TIMEOUT_US
    # Nobody else is there, so it leads at once and has nothing to recover from.
    server.tick()
    assert recover(server) is RefusalReason.LEADER_KNOWN
    assert kinship(Generation(9, (0, LATER)), LATER) is Kinship.FORMER
    assert kinship(Generation(9, (0, LATER)), 0) is Kinship.FORMER
    assert kinship(Generation(9, (0, LATER)), 9) is Kinship.SAME


def test_generations_that_do_not_go_back_to_each_other_are_strangers() -> None:
    """Two survivors that both recovered, with a partition between them."""
    one, other = Generation(1, (0,)), Generation(2, (0,))
    assert kinship(one, other.id) is kinship(other, one.id) is Kinship.STRANGE


def test_a_member_without_a_leader_takes_no_part_once_it_is_superseded() -> None:
    server = alone()
    effects = server.step(Superseded(2, LATER, False))
    assert "superseded" in notes(effects)
    assert server.receive(3, PreVote(99, 1, 99, 99)) == []
    server.tick()
    assert server.node.role is Role.FOLLOWER


def test_a_member_with_a_leader_goes_on_and_says_so_once() -> None:
    server = Server(size=3)
    server.receive(2, Heartbeat(1, 1, 1, 1, 1))
    assert notes(server.step(Superseded(3, LATER, True))) == ["superseded_ignored"]
    assert notes(server.step(Superseded(3, LATER, True))) == []
    assert server.node.state.superseded == 0


def test_an_awaited_member_gives_its_data_up_only_when_it_was_long_without_a_leader() -> None:
    server = Server(size=3)
    server.receive(2, Heartbeat(1, 1, 1, 1, 1))
    while server.node.leader_id:
        server.tick()
    assert not of(Abandon, server.step(Superseded(3, LATER, True)))
    server.now_us += 10 * MAX_TIMEOUT_US
    assert of(Abandon, server.step(Superseded(3, LATER, True))) == [Abandon(LATER)]
    assert server.step(Superseded(3, LATER, True)) == []


def test_a_damaged_end_of_the_log_is_given_up_with_the_rest() -> None:
    """It could be filled again only by a leader that has it, and that one is lost."""
    server = Server(size=3, log=log_of(1, 2, 2), vote=Vote(2, 0, 2, 9))
    server.tick()
    server.now_us += MAX_TIMEOUT_US
    server.tick()
    assert recover(server) == 4
    server.tick()
    assert server.node.role is Role.LEADER


DAMAGED = Vote(2, 0, floor_term=2, floor_index=6)


def refilled_by_nobody(size: int) -> Server:
    """Member 1 of `size` voters, whose log ended with (term 2, index 6) before it was damaged."""
    server = Server(size=size, log=log_of(1, 2, 2, size=size), vote=DAMAGED)
    server.now_us = 10 * MAX_TIMEOUT_US
    server.tick()
    return server


def test_the_only_voter_with_a_damaged_log_can_go_on_with_what_is_left() -> None:
    server = refilled_by_nobody(1)
    assert server.node.role is Role.FOLLOWER
    assert recover(server) == 4
    server.tick()
    assert server.node.role is Role.LEADER
    assert server.node.state.vote_floor == (0, 0)


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ([survivor(2, (2, 2))], None),
        ([survivor(2, (2, 5))], RefusalReason.RECOVER_ELSEWHERE),
        ([survivor(2, (2, 6))], RefusalReason.QUORUM_ANSWERS),
        ([survivor(2, (2, 2)), survivor(3, (2, 2))], RefusalReason.QUORUM_ANSWERS),
    ],
    ids=[
        "nobody has what this one lost",
        "another one has more of it",
        "another one has all of it, and gets this one's vote",
        "two others elect one of themselves",
    ],
)
def test_who_can_elect_nobody_here_is_no_part_of_a_majority_that_answers(
    others: list[Survivor], reason: RefusalReason | None
) -> None:
    assert judge(refilled_by_nobody(3).node.state, others).refusal is reason
