"""Reads wait for their index, share questions, and are asked again while there is no leader."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from raft_agent.api.host import Failure
from raft_agent.api.protocol import ErrorCode
from raft_agent.consensus.types import Event, Read, ReadReady
from raft_agent.runtime.barriers import Barriers

FAILURE = Failure(ErrorCode.NO_LEADER, "There is no leader")


class Reader:
    def __init__(self, patience_s: float) -> None:
        self.loop = asyncio.new_event_loop()
        self.asked: list[int] = []
        self.applied_index = 5
        self.told: list[tuple[str, Failure | None]] = []
        self.barriers = Barriers(self.loop, self._feed, lambda: self.applied_index, patience_s)
        self.asked_again = asyncio.Event()

    def _feed(self, event: Event) -> None:
        assert isinstance(event, Read)
        self.asked.append(event.tag)
        self.asked_again.set()

    def read(self, *names: str) -> None:
        for name in names:
            self.barriers.add(lambda failure, name=name: self.told.append((name, failure)))
        self.loop.run_until_complete(asyncio.sleep(0))


@pytest.fixture
def reader() -> Iterator[Reader]:
    made = Reader(patience_s=10.0)
    yield made
    made.loop.close()


def test_reads_of_one_turn_share_a_question(reader: Reader) -> None:
    reader.read("one", "two")
    assert len(reader.asked) == 1
    reader.barriers.ready(ReadReady(reader.asked[0], 5))
    assert reader.told == [("one", None), ("two", None)]


def test_a_read_waits_until_its_index_is_applied(reader: Reader) -> None:
    reader.read("early")
    reader.read("late")
    reader.barriers.ready(ReadReady(reader.asked[1], 8))
    reader.barriers.ready(ReadReady(reader.asked[0], 6))
    reader.barriers.applied(6)
    assert reader.told == [("early", None)]
    reader.barriers.applied(8)
    assert reader.told == [("early", None), ("late", None)]


def test_a_refusal_that_an_election_may_cure_is_asked_again(reader: Reader) -> None:
    reader.read("patient")
    reader.asked_again.clear()
    reader.barriers.refused(reader.asked[0], FAILURE, may_pass=True)
    reader.loop.run_until_complete(asyncio.wait_for(reader.asked_again.wait(), 5))
    assert reader.told == []
    reader.barriers.ready(ReadReady(reader.asked[1], 5))
    assert reader.told == [("patient", None)]


def test_a_refusal_that_nothing_cures_is_passed_on(reader: Reader) -> None:
    reader.read("one")
    reader.barriers.refused(reader.asked[0], FAILURE, may_pass=False)
    assert reader.told == [("one", FAILURE)]


def test_patience_ends() -> None:
    reader = Reader(patience_s=0.0)
    reader.read("one")
    reader.barriers.refused(reader.asked[0], FAILURE, may_pass=True)
    reader.loop.close()
    assert reader.told == [("one", FAILURE)]


def test_when_the_node_gives_up_every_read_is_answered(reader: Reader) -> None:
    reader.read("ready")
    reader.barriers.ready(ReadReady(reader.asked[0], 8))
    reader.read("asked")
    reader.read("retried")
    reader.asked_again.clear()
    reader.barriers.refused(reader.asked[2], FAILURE, may_pass=True)
    gone = Failure(ErrorCode.STORAGE_FAILED, "the disk failed")
    reader.barriers.give_up(gone)
    reader.read("late")

    async def until_all_are_told() -> None:
        while len(reader.told) < 4:
            await asyncio.sleep(0)

    reader.loop.run_until_complete(asyncio.wait_for(until_all_are_told(), 5))
    assert sorted(name for name, _ in reader.told) == ["asked", "late", "ready", "retried"]
    assert all(failure is gone for _, failure in reader.told)


def test_reads_that_were_given_up_are_told_once_and_those_that_follow_are_served(
    reader: Reader,
) -> None:
    reader.read("ready")
    reader.barriers.ready(ReadReady(reader.asked[0], 8))
    reader.read("asked", "with it")
    reader.read("refused")
    wrong = Failure(ErrorCode.STATE_DIFFERS, "the state is wrong")
    reader.barriers.give_up_waiting(wrong)
    assert reader.told == [(name, wrong) for name in ("ready", "asked", "with it", "refused")]
    # The core answers what it was asked before.
    reader.barriers.ready(ReadReady(reader.asked[1], 5))
    reader.barriers.refused(reader.asked[2], FAILURE, may_pass=True)
    assert len(reader.told) == 4
    reader.read("later")
    reader.barriers.ready(ReadReady(reader.asked[3], 5))
    assert reader.told[4:] == [("later", None)]
    assert reader.barriers.waiting_count == 0
