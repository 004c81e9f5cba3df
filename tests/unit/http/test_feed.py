"""What is pushed to the status page, and when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from raft_agent.api.host import Failure
from raft_agent.api.protocol import ErrorCode
from raft_agent.http import feed as feeds
from raft_agent.http.feed import Feed, Reader
from tests.unit.http.sources import FakeSource, leaders_health

HANG_S = 20


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def guarded() -> None:
        async with asyncio.timeout(HANG_S):
            await test()

    asyncio.run(guarded())


@asynccontextmanager
async def started(source: FakeSource) -> AsyncIterator[Feed]:
    feed = Feed(source)
    feed.start()
    try:
        yield feed
    finally:
        await feed.close()


async def next_message(reader: Reader, *kinds: str) -> dict[str, Any]:
    """The data of the next message of one of these kinds."""
    while True:
        message = await reader.messages.get()
        assert message is not None
        first, second, *rest = message.decode().split("\n")
        assert rest == ["", ""]
        if first.removeprefix("event: ") in kinds:
            data: dict[str, Any] = json.loads(second.removeprefix("data: "))
            return data


def test_a_page_that_opens_gets_all_there_is() -> None:
    async def test() -> None:
        source = FakeSource()
        source.happen("leader_elected")
        async with started(source) as feed:
            await asyncio.sleep(0)
            hello = await next_message(await feed.open(), "hello")
        assert hello["tick"]["status"]["node_id"] == "node-01"
        assert [m["name"] for m in hello["tick"]["health"]["members"]] == [
            "node-01",
            "node-02",
            "node-03",
        ]
        assert [event["kind"] for event in hello["events"]] == ["leader_elected"]
        assert [sample["commit_index"] for sample in hello["history"]] == [42]

    run(test)


def test_what_happens_is_told_before_the_second_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "INTERVAL_S", 3600.0)

    async def test() -> None:
        source = FakeSource()
        async with started(source) as feed:
            reader = await feed.open()
            await next_message(reader, "hello")
            source.unready = "no leader is known"
            source.happen("leader_lost")
            assert (await next_message(reader, "event"))["kind"] == "leader_lost"
            assert (await next_message(reader, "tick"))["not_ready"] == "no leader is known"

    run(test)


def test_numbers_come_without_anything_happening(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "INTERVAL_S", 0.01)

    async def test() -> None:
        source = FakeSource()
        async with started(source) as feed:
            reader = await feed.open()
            for index in (50, 51):
                source.index = index
                while (await next_message(reader, "tick"))["vitals"]["commit_index"] != index:
                    pass

    run(test)


def test_a_follower_shows_the_members_as_the_leader_sees_them() -> None:
    async def test() -> None:
        source = FakeSource()
        source.leads = False
        source.leader_answers = leaders_health(term=9)
        async with started(source) as feed:
            hello = await next_message(await feed.open(), "hello")
        assert hello["tick"]["health"]["term"] == 9
        assert [msgspec.structs.asdict(request) for request in source.forwarded] == [
            {"id": 1, "forward": False}
        ]

    run(test)


@pytest.mark.parametrize(
    "answer", [None, Failure(ErrorCode.NO_LEADER, "The leader can't be reached"), b"\xc1"]
)
def test_without_an_answer_of_the_leader_a_follower_shows_its_own_view(
    answer: bytes | Failure | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "_LEADER_PATIENCE_S", 0.01)

    async def test() -> None:
        source = FakeSource()
        source.leads = False
        source.leader_answers = answer
        async with started(source) as feed:
            hello = await next_message(await feed.open(), "hello")
        assert hello["tick"]["health"]["term"] == 7

    run(test)


def test_who_does_not_read_is_dropped_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "_MAX_UNREAD", 3)

    async def test() -> None:
        source = FakeSource()
        async with started(source) as feed:
            deaf, listening = await feed.open(), await feed.open()
            for number in range(4):
                source.happen(f"event-{number}")
                while (await next_message(listening, "event"))["kind"] != f"event-{number}":
                    pass
            assert feed.reader_count == 1
        kept = [deaf.messages.get_nowait() for _ in range(deaf.messages.qsize())]
        assert len(kept) == 4
        assert kept[-1] is None

    run(test)


def test_the_end_of_the_agent_ends_the_streams_and_the_subscription() -> None:
    async def test() -> None:
        source = FakeSource()
        async with started(source) as feed:
            reader = await feed.open()
        messages = [reader.messages.get_nowait() for _ in range(reader.messages.qsize())]
        assert messages[-1] is None
        assert source.subscribers == set()
        assert feed.reader_count == 0

    run(test)


@asynccontextmanager
async def waiting_for_the_leader() -> AsyncIterator[tuple[Feed, asyncio.Task[Reader]]]:
    """Somebody has come to a follower, and the leader is asked."""
    source = FakeSource()
    source.leads = False
    async with started(source) as feed:
        opening = asyncio.create_task(feed.open())
        while not source.forwarded:
            await asyncio.sleep(0)
        yield feed, opening


def test_the_end_of_the_agent_ends_the_stream_of_who_waits_for_the_leader() -> None:
    async def test() -> None:
        async with waiting_for_the_leader() as (feed, opening):
            assert feed.reader_count == 1
        assert (await opening).messages.get_nowait() is None
        assert feed.reader_count == 0

    run(test)


def test_who_leaves_while_the_leader_is_asked_gives_the_place_back() -> None:
    async def test() -> None:
        async with waiting_for_the_leader() as (feed, opening):
            opening.cancel()
            await asyncio.wait([opening])
            assert feed.reader_count == 0

    run(test)


def test_the_past_that_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "INTERVAL_S", 0.0)
    monkeypatch.setattr(feeds, "KEPT_SAMPLES", 5)

    async def test() -> None:
        source = FakeSource()
        async with started(source) as feed:
            for _ in range(20):
                await asyncio.sleep(0)
            hello = await next_message(await feed.open(), "hello")
            assert len(hello["history"]) == 5

    run(test)
