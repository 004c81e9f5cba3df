"""What whoever proposed is told, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from raft_agent.api.host import Applied, Failure, Outcome
from raft_agent.api.protocol import ErrorCode
from raft_agent.consensus.batch import Batch, BatchKind, encode
from raft_agent.consensus.types import Event, Propose, Proposed
from raft_agent.machine.commands import Put
from raft_agent.runtime.proposals import MAX_BATCH_BYTES, Proposals
from tests.unit.machine.batches import split_commands


class Core:
    """Takes proposals like a leader whose log ends at `last_index`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.proposals = Proposals(loop, self.feed)
        self.last_index = 0
        self.term = 1
        self.batches: list[Batch] = []
        self.told: dict[str, list[Outcome]] = {}
        self._loop = loop

    def feed(self, event: Event) -> None:
        assert isinstance(event, Propose)
        first_index = self.last_index + 1
        self.batches.append(
            encode(BatchKind.COMMANDS, first_index, self.term, event.count, event.payload)
        )
        self.last_index = self.batches[-1].last_index
        self.proposals.proposed(Proposed(event.tag, first_index, self.term))

    def put(self, *keys: str, value: bytes = b"") -> None:
        for key in keys:
            self.proposals.add([Put(key, value)], self.told.setdefault(key, []).append)
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
    core.put("one", "two", "three")
    (batch,) = core.batches
    commands = split_commands(batch.payload, batch.count)
    assert commands == [Put(key, b"") for key in ("one", "two", "three")]


def test_a_turn_of_large_commands_is_split(core: Core) -> None:
    core.put(*"abcde", value=bytes(MAX_BATCH_BYTES // 2 - 100))
    assert [batch.count for batch in core.batches] == [2, 2, 1]


def test_each_is_told_its_own_index_once_it_is_applied(core: Core) -> None:
    core.put("one", "two")
    assert core.told == {"one": [], "two": []}
    core.apply(core.batches[0])
    for index, command in enumerate(("one", "two"), 1):
        (outcome,) = core.told[command]
        assert isinstance(outcome, Applied)
        assert (outcome.first_index, outcome.term, len(outcome.results)) == (index, 1, 1)


def test_what_was_handed_over_together_is_told_together_with_its_own_results(core: Core) -> None:
    told: list[Outcome] = []
    core.proposals.add([Put("a", b""), Put("b", b"")], told.append)
    core.put("c")
    (batch,) = core.batches
    core.proposals.applied(batch, ["of a", "of b", "of c"])
    assert told == [Applied(1, 1, ["of a", "of b"])]
    assert core.told["c"] == [Applied(3, 1, ["of c"])]


def test_a_write_is_lost_once_another_terms_batch_is_applied_in_its_place(core: Core) -> None:
    core.put("mine")
    core.proposals.stepped_down()
    core.apply(noop(1, term=2))
    (outcome,) = core.told["mine"]
    assert isinstance(outcome, Failure)
    assert outcome.code is ErrorCode.NOT_LEADER


def test_what_a_larger_batch_of_another_leader_covers_is_lost_too(core: Core) -> None:
    core.put("one")
    core.put("two")
    core.proposals.stepped_down()
    core.apply(encode(BatchKind.COMMANDS, 1, 2, 2, b""))
    assert [type(core.told[name][0]) for name in ("one", "two")] == [Failure, Failure]


def test_leading_again_without_a_batch_does_not_decide_that_it_is_lost(core: Core) -> None:
    # Figure 8: another node may still hold the older batch, win, and commit it.
    core.put("older")
    (older,) = core.batches
    core.proposals.stepped_down()
    core.term, core.last_index = 3, 0
    core.put("newer")
    assert core.told == {"older": [], "newer": []}
    core.apply(older)
    assert isinstance(core.told["older"][0], Applied)
    assert isinstance(core.told["newer"][0], Failure)


def test_what_a_leaders_snapshot_stands_for_may_have_happened_and_the_rest_still_may(
    core: Core,
) -> None:
    core.put("one")
    core.put("two")
    core.proposals.stepped_down()
    core.proposals.skipped(1)
    (outcome,) = core.told["one"]
    assert isinstance(outcome, Failure)
    assert outcome.code is ErrorCode.UNKNOWN_OUTCOME
    assert core.told["two"] == []
    core.apply(core.batches[1])
    assert isinstance(core.told["two"][0], Applied)


def test_at_the_end_only_what_was_never_proposed_is_said_not_to_happen(core: Core) -> None:
    core.put("in the log")
    core.proposals.add([Put("gathered", b"")], core.told.setdefault("gathered", []).append)
    core.proposals.give_up(Failure(ErrorCode.SHUTTING_DOWN, "The agent is stopping"))
    codes = {
        name: [outcome.code for outcome in outcomes if isinstance(outcome, Failure)]
        for name, outcomes in core.told.items()
    }
    assert codes == {
        "in the log": [ErrorCode.UNKNOWN_OUTCOME],
        "gathered": [ErrorCode.SHUTTING_DOWN],
    }


def test_each_command_is_counted_by_what_became_of_it(core: Core) -> None:
    counts = core.proposals.counts
    core.put("one", "two")
    assert core.proposals.logged_count == 2
    core.apply(core.batches[0])
    assert (counts.applied, core.proposals.logged_count) == (2, 0)
    assert sum(counts.commits.buckets) == 2
    core.put("overwritten")
    core.proposals.stepped_down()
    core.apply(noop(3, term=2))
    core.put("skipped")
    core.proposals.skipped(100)
    core.proposals.add([Put("gathered", b"")], lambda _: None)
    core.proposals.give_up(Failure(ErrorCode.SHUTTING_DOWN, "The agent is stopping"))
    assert (counts.applied, counts.refused, counts.lost, counts.unknown) == (2, 1, 1, 1)
    assert sum(counts.commits.buckets) == 2
