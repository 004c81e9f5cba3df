"""What whoever proposed is told, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from raft_agent.api.host import Applied, Failure, Outcome
from raft_agent.api.protocol import ErrorCode
from raft_agent.consensus.batch import Batch, BatchKind, encode
from raft_agent.consensus.types import Event, Propose, Proposed
from raft_agent.machine.commands import split_commands
from raft_agent.runtime.proposals import MAX_BATCH_BYTES, Proposals


class Core:
    """Takes proposals like a leader whose log ends at `last_index`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.proposals = Proposals(loop, self.feed)
        self.last_index = 0
        self.term = 1
        self.batches: list[Batch] = []
        self.told: dict[bytes, list[Outcome]] = {}
        self._loop = loop

    def feed(self, event: Event) -> None:
        assert isinstance(event, Propose)
        first_index = self.last_index + 1
        self.batches.append(
            encode(BatchKind.COMMANDS, first_index, self.term, event.count, event.payload)
        )
        self.last_index = self.batches[-1].last_index
        self.proposals.proposed(Proposed(event.tag, first_index, self.term))

    def put(self, *commands: bytes) -> None:
        for command in commands:
            self.proposals.add(command, self.told.setdefault(command, []).append)
        self._loop.run_until_complete(asyncio.sleep(0))

    def apply(self, batch: Batch) -> None:
        results = None if batch.kind == BatchKind.NOOP else [object()] * batch.count
        self.proposals.applied(batch, results)


@pytest.fixture
def core() -> Iterator[Core]:
    loop = asyncio.new_event_loop()
    yield Core(loop)
    loop.close()


def noop(index: int, term: int) -> Batch:
    return encode(BatchKind.NOOP, index, term, 1, b"")


def test_commands_of_one_turn_share_a_batch_and_keep_their_order(core: Core) -> None:
    core.put(b"one", b"two", b"three")
    (batch,) = core.batches
    assert split_commands(batch.payload, batch.count)[1] == [b"one", b"two", b"three"]


def test_a_turn_of_large_commands_is_split(core: Core) -> None:
    commands = [bytes([number]) * (MAX_BATCH_BYTES // 2) for number in range(5)]
    core.put(*commands)
    assert [batch.count for batch in core.batches] == [2, 2, 1]


def test_each_is_told_its_own_index_once_it_is_applied(core: Core) -> None:
    core.put(b"one", b"two")
    assert core.told == {b"one": [], b"two": []}
    core.apply(core.batches[0])
    for index, command in enumerate((b"one", b"two"), 1):
        (outcome,) = core.told[command]
        assert isinstance(outcome, Applied)
        assert (outcome.index, outcome.term) == (index, 1)


def test_a_write_is_lost_once_another_terms_batch_is_applied_in_its_place(core: Core) -> None:
    core.put(b"mine")
    core.proposals.stepped_down()
    core.apply(noop(1, term=2))
    (outcome,) = core.told[b"mine"]
    assert isinstance(outcome, Failure)
    assert outcome.code is ErrorCode.NOT_LEADER


def test_what_a_larger_batch_of_another_leader_covers_is_lost_too(core: Core) -> None:
    core.put(b"one")
    core.put(b"two")
    core.proposals.stepped_down()
    core.apply(encode(BatchKind.COMMANDS, 1, 2, 2, b""))
    assert [type(core.told[name][0]) for name in (b"one", b"two")] == [Failure, Failure]


def test_leading_again_without_a_batch_does_not_decide_that_it_is_lost(core: Core) -> None:
    # Figure 8: another node may still hold the older batch, win, and commit it.
    core.put(b"older")
    (older,) = core.batches
    core.proposals.stepped_down()
    core.term, core.last_index = 3, 0
    core.put(b"newer")
    assert core.told == {b"older": [], b"newer": []}
    core.apply(older)
    assert isinstance(core.told[b"older"][0], Applied)
    assert isinstance(core.told[b"newer"][0], Failure)


def test_what_a_leaders_snapshot_stands_for_may_have_happened_and_the_rest_still_may(
    core: Core,
) -> None:
    core.put(b"one")
    core.put(b"two")
    core.proposals.stepped_down()
    core.proposals.skipped(1)
    (outcome,) = core.told[b"one"]
    assert isinstance(outcome, Failure)
    assert outcome.code is ErrorCode.UNKNOWN_OUTCOME
    assert core.told[b"two"] == []
    core.apply(core.batches[1])
    assert isinstance(core.told[b"two"][0], Applied)


def test_at_the_end_only_what_was_never_proposed_is_said_not_to_happen(core: Core) -> None:
    core.put(b"in the log")
    core.proposals.add(b"gathered", core.told.setdefault(b"gathered", []).append)
    core.proposals.give_up(Failure(ErrorCode.SHUTTING_DOWN, "The agent is stopping"))
    codes = {
        name: [outcome.code for outcome in outcomes if isinstance(outcome, Failure)]
        for name, outcomes in core.told.items()
    }
    assert codes == {
        b"in the log": [ErrorCode.UNKNOWN_OUTCOME],
        b"gathered": [ErrorCode.SHUTTING_DOWN],
    }


def test_each_command_is_counted_by_what_became_of_it(core: Core) -> None:
    counts = core.proposals.counts
    core.put(b"one", b"two")
    assert core.proposals.logged_count == 2
    core.apply(core.batches[0])
    assert (counts.applied, core.proposals.logged_count) == (2, 0)
    assert sum(counts.commits.buckets) == 2
    core.put(b"overwritten")
    core.proposals.stepped_down()
    core.apply(noop(3, term=2))
    core.put(b"skipped")
    core.proposals.skipped(100)
    core.proposals.add(b"gathered", lambda _: None)
    core.proposals.give_up(Failure(ErrorCode.SHUTTING_DOWN, "The agent is stopping"))
    assert (counts.applied, counts.refused, counts.lost, counts.unknown) == (2, 1, 1, 1)
    assert sum(counts.commits.buckets) == 2
