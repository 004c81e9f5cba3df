"""The asyncio client: finding the leader, losing connections, watching."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from raft_agent.api import protocol
from raft_agent.api.client import (
    AgentNotReachable,
    Client,
    HistoryCompacted,
    OutcomeUnknown,
    RequestFailed,
)
from raft_agent.api.link import Link
from raft_agent.api.protocol import ErrorCode
from raft_agent.machine.commands import Delete, Put, SendMessage, SetSetting
from tests.unit.api.several import nodes
from tests.unit.api.single_node import SingleNode, run, serving

TIMEOUT_S = 20.0

# Without sessions, for these nodes share no state.
Plain = partial(Client, exactly_once=False)


def test_every_method_asks_its_request(tmp_path: Path) -> None:
    async def main() -> None:
        node = SingleNode()
        async with serving(node, tmp_path / "s"), Plain(tmp_path / "s") as client:
            assert (await client.put("k", b"v")).revision == 1
            assert await client.get("k") == protocol.KeyValue("k", b"v", 1, 1, 1)
            assert await client.get("none") is None
            assert [key.key for key in (await client.list("k")).keys] == ["k"]
            assert (await client.delete("k", if_revision=1)).deleted == 1
            assert (await client.send("hi")).index == 3
            assert (await client.messages()).messages[0].text == "hi"
            assert (await client.status()).node_id == "node-01"
            assert (await client.health()).quorum
            assert (await client.member_list()).leader == "node-01"
            assert (await client.leader_transfer("node-01")).leader == "node-01"
            node.happen("something")
            assert (await client.events()).events[0].kind == "something"

    run(main())


def test_requests_of_one_turn_share_a_frame_and_a_batch(tmp_path: Path) -> None:
    async def main() -> None:
        node = SingleNode()
        async with serving(node, tmp_path / "s") as server, Plain(tmp_path / "s") as client:
            await client.put("first", b"")
            writes = [client.put(f"k{number}", b"v") for number in range(500)]
            revisions = [result.revision for result in await asyncio.gather(*writes)]
            assert revisions == list(range(2, 502))
            assert node.batches == 2
            assert len(server._connections) == 1

    run(main())


def test_a_condition_that_fails_is_raised_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with nodes(tmp_path, 3) as group, Plain(group.paths) as client:
            await client.put("k", b"v")
            with pytest.raises(RequestFailed) as failed:
                await client.put("k", b"v", if_revision=0)
            assert failed.value.code is ErrorCode.CONFLICT

    run(main())


@pytest.mark.parametrize("named", [True, False])
def test_writes_find_the_leader(tmp_path: Path, named: bool) -> None:
    async def main() -> None:
        async with nodes(tmp_path, 3) as group:
            sockets: Any = group.paths if named else list(group.paths.values())
            async with Plain(sockets) as client:
                for leader in ("node-03", "node-02", "node-01"):
                    group.lead(leader)
                    await client.put(leader, b"v")
                    assert (await client.status()).node_id == leader
            assert [host.machine.key_count() for host in group.hosts] == [1, 1, 1]

    run(main())


def test_many_writes_at_once_find_the_leader_together(tmp_path: Path) -> None:
    async def main() -> None:
        async with nodes(tmp_path, 3) as group, Plain(group.paths) as client:
            await client.status()
            group.lead("node-03")
            await asyncio.gather(*(client.put(f"k{number}", b"") for number in range(200)))
            assert [host.machine.key_count() for host in group.hosts] == [0, 0, 200]

    run(main())


def test_a_follower_passes_on_when_the_leader_has_no_socket_here(tmp_path: Path) -> None:
    async def main() -> None:
        async with nodes(tmp_path, 3) as group:
            for host in group.hosts[1:]:
                host.leader_api = group.servers["node-01"]
            sockets = [group.paths["node-02"], group.paths["node-03"]]
            for some in (sockets, sockets[:1]):
                async with Plain(some, timeout_s=TIMEOUT_S) as client:
                    await client.put(str(len(some)), b"v")
            assert [host.machine.key_count() for host in group.hosts] == [2, 0, 0]

    run(main())


def test_a_client_goes_on_from_an_agent_that_waits_to_be_joined(tmp_path: Path) -> None:
    """As where a member's place was given up, and another one comes up in it."""

    async def main() -> None:
        async with nodes(tmp_path, 3) as group:
            group.lead("node-03")
            fresh = group.hosts[0]
            fresh.leader, fresh.is_in_cluster = None, False
            async with Plain(group.paths, timeout_s=TIMEOUT_S) as client:
                await client.put("k", b"v")
            # Whoever knows no other has to hear of it.
            async with Plain(group.paths["node-01"]) as client:
                with pytest.raises(RequestFailed) as failed:
                    await client.put("k", b"v")
            assert failed.value.code is ErrorCode.NOT_IN_CLUSTER
            assert [host.machine.key_count() for host in group.hosts] == [0, 0, 1]

    run(main())


def test_a_client_that_forwards_stays_where_it_is(tmp_path: Path) -> None:
    async def main() -> None:
        async with nodes(tmp_path, 2) as group:
            group.hosts[1].leader_api = group.servers["node-01"]
            async with Plain(group.paths["node-02"], forward=True) as client:
                await client.put("k", b"v")
                await client.send("hi")
                assert (await client.status()).node_id == "node-02"
            assert group.hosts[0].machine.key_count() == 1
            assert group.hosts[0].machine.messages(1)[0].node == "node-02"

    run(main())


def test_a_write_waits_for_a_leader_to_be_elected(tmp_path: Path) -> None:
    async def main() -> None:
        async with nodes(tmp_path, 3) as group, Plain(group.paths, timeout_s=TIMEOUT_S) as client:
            group.lead(None)
            write = asyncio.create_task(client.put("k", b"v"))
            await client.status()
            group.lead("node-02")
            await write
            assert group.hosts[1].machine.key_count() == 1

    run(main())


def test_without_a_leader_a_write_ends_with_the_agents_words(tmp_path: Path) -> None:
    async def main() -> None:
        async with nodes(tmp_path, 2) as group, Plain(group.paths, timeout_s=1.0) as client:
            group.lead(None)
            with pytest.raises(RequestFailed) as failed:
                await client.put("k", b"v")
            assert failed.value.code is ErrorCode.NO_LEADER

    run(main())


def test_without_a_leader_a_client_connects_less_and_less_often(tmp_path: Path) -> None:
    class Counting(Client):
        connections = 0

        async def connect(self, deadline: float) -> Link:
            self.connections += 1
            return await super().connect(deadline)

    async def main() -> None:
        async with (
            nodes(tmp_path, 3) as group,
            Counting(group.paths, timeout_s=3.0, exactly_once=False) as client,
        ):
            group.lead(None)
            with pytest.raises(RequestFailed):
                await client.put("k", b"v")
            # With the first pause each time it would be more than a hundred.
            assert client.connections < 20

    run(main())


def test_a_lost_connection_leaves_the_outcome_of_a_write_open(tmp_path: Path) -> None:
    async def main() -> None:
        async with nodes(tmp_path, 2) as group, Plain(group.paths) as client:
            proposed = asyncio.Event()
            group.hosts[0].propose = lambda _command, _done: proposed.set()  # type: ignore[method-assign]
            write = asyncio.create_task(client.put("k", b"v"))
            await proposed.wait()
            await group.stop(group.hosts[0])
            with pytest.raises(OutcomeUnknown):
                await write
            group.lead("node-02")
            await client.put("k", b"v")
            assert group.hosts[1].machine.key_count() == 1

    run(main())


def test_a_read_that_lost_its_connection_is_asked_again_elsewhere(tmp_path: Path) -> None:
    async def main() -> None:
        async with nodes(tmp_path, 2) as group, Plain(group.paths) as client:
            asked = asyncio.Event()
            group.hosts[0].read_barrier = lambda _done: asked.set()  # type: ignore[method-assign]
            read = asyncio.create_task(client.get("k"))
            await asked.wait()
            await group.stop(group.hosts[0])
            assert await read is None
            assert group.hosts[1].barriers == 1

    run(main())


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda client: client.put("k", b"v"), OutcomeUnknown),
        (lambda client: client.get("k"), AgentNotReachable),
    ],
)
def test_no_answer_in_time(
    tmp_path: Path, ask: Callable[[Client], Any], error: type[Exception]
) -> None:
    async def main() -> None:
        node = SingleNode()
        node.hold_back = True
        node.read_barrier = lambda _done: None  # type: ignore[method-assign]
        async with (
            serving(node, tmp_path / "s"),
            Plain(tmp_path / "s", timeout_s=1.0) as client,
        ):
            with pytest.raises(error, match="no answer within 1 s"):
                await ask(client)
            if error is OutcomeUnknown:
                node.apply_waiting()  # the late answer is for nobody
            assert (await client.status()).node_id == "node-01"

    run(main())


def test_a_question_that_hangs_at_one_agent_is_answered_by_another(tmp_path: Path) -> None:
    async def main() -> None:
        async with nodes(tmp_path, 2) as group, Plain(group.paths, timeout_s=3.0) as client:
            group.hosts[0].read_barrier = lambda _done: None  # type: ignore[method-assign]
            assert await client.get("k") is None
            assert group.hosts[1].barriers == 1

    run(main())


def test_after_an_agent_that_hangs_the_next_one_is_asked(tmp_path: Path) -> None:
    async def main() -> None:
        async with nodes(tmp_path, 2) as group, Plain(group.paths, timeout_s=0.5) as client:
            group.hosts[0].hold_back = True
            with pytest.raises(OutcomeUnknown):
                await client.put("k", b"v")
            assert (await client.status()).node_id == "node-02"

    run(main())


def test_nobody_there_is_said_with_the_path(tmp_path: Path) -> None:
    async def main() -> None:
        async with Plain([tmp_path / "s"], timeout_s=0.1) as client:
            with pytest.raises(AgentNotReachable, match=f"{tmp_path}/s: No such file"):
                await client.put("k", b"v")

    run(main())


def test_a_client_waits_for_an_agent_that_is_starting(tmp_path: Path) -> None:
    async def main() -> None:
        async with Plain(tmp_path / "s", timeout_s=TIMEOUT_S) as client:
            asking = asyncio.create_task(client.status())
            await asyncio.sleep(0)
            async with serving(SingleNode(), tmp_path / "s"):
                assert (await asking).node_id == "node-01"

    run(main())


def test_a_client_needs_an_agent() -> None:
    with pytest.raises(ValueError, match="at least one agent"):
        Plain([])


def test_a_cancelled_request_does_not_disturb_the_others(tmp_path: Path) -> None:
    async def main() -> None:
        node = SingleNode()
        node.hold_back = True
        async with serving(node, tmp_path / "s"), Plain(tmp_path / "s") as client:
            await client.status()
            first = asyncio.create_task(client.put("a", b""))
            second = asyncio.create_task(client.put("b", b""))
            await client.status()
            first.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await first
            node.apply_waiting()
            assert (await second).revision == 2

    run(main())


def test_a_watch_of_keys_stands_when_its_block_begins(tmp_path: Path) -> None:
    async def main() -> None:
        node = SingleNode()
        async with serving(node, tmp_path / "s"), Plain(tmp_path / "s") as client:
            async with client.watch_keys("k/", prefix=True) as changes:
                await client.put("k/1", b"v")
                await client.put("other", b"v")
                await client.delete("k/1")
                seen = [(await anext(changes)).type, (await anext(changes)).type]
                assert seen == ["put", "delete"]
            with pytest.raises(StopAsyncIteration):
                await anext(changes)
            while node.machine.watches.watches_keys:
                await asyncio.sleep(0)

    run(main())


def test_async_for_starts_a_watch(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(SingleNode(), tmp_path / "s"), Plain(tmp_path / "s") as client:
            for number in range(2500):
                await client.send(str(number))
            seen: list[str] = []
            watch = client.watch_messages(after_index=0)
            async for message in watch:
                seen.append(message.text)
                if len(seen) == 2500:
                    await watch.close()
            assert seen == [str(number) for number in range(2500)]

    run(main())


def test_a_watch_of_messages_goes_on_where_it_was_after_a_lost_connection(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            nodes(tmp_path, 1) as group,
            Plain(group.paths, timeout_s=TIMEOUT_S) as client,
            client.watch_messages() as messages,
        ):
            await client.send("one")
            assert (await anext(messages)).text == "one"
            await group.stop(group.hosts[0])
            await group.start(group.hosts[0])
            await client.send("two")
            await client.send("three")
            assert [(await anext(messages)).text for _ in range(2)] == ["two", "three"]

    run(main())


def test_a_watch_whose_next_messages_are_gone_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            nodes(tmp_path, 1) as group,
            Plain(group.paths, timeout_s=TIMEOUT_S) as client,
            client.watch_messages() as messages,
        ):
            await client.send("seen")
            seen = await anext(messages)
            node = group.hosts[0]
            await group.stop(node)
            node.apply_commands([SetSetting("messages_keep", 1)])
            node.apply_commands([SendMessage(text, "n") for text in ("b", "c")])
            await group.start(node)
            with pytest.raises(RequestFailed, match=f"after index {seen.index} the oldest are"):
                await anext(messages)

    run(main())


@pytest.mark.parametrize("seen_before", [0, 2])
def test_a_watch_of_keys_goes_on_where_it_was_after_a_lost_connection(
    tmp_path: Path, seen_before: int
) -> None:
    async def main() -> None:
        async with (
            nodes(tmp_path, 1) as group,
            Plain(group.paths, timeout_s=TIMEOUT_S) as client,
        ):
            await client.put("k", b"before")
            async with client.watch_keys("k") as changes:
                for number in range(seen_before):
                    await client.put("k", b"%d" % number)
                    assert (await anext(changes)).value == b"%d" % number
                await group.stop(group.hosts[0])
                # While nobody watches.
                node = group.hosts[0]
                node.apply_commands([Put("k", b"a"), Delete("k")])
                await group.start(node)
                events = [await anext(changes) for _ in range(2)]
                assert [event.type for event in events] == ["put", "delete"]
                await client.put("k", b"last")
                assert (await anext(changes)).value == b"last"

    run(main())


def test_a_watch_of_keys_begins_at_a_revision(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(SingleNode(), tmp_path / "s"), Plain(tmp_path / "s") as client:
            for number in range(4):
                await client.put(f"k{number}", b"")
            async with client.watch_keys("k", prefix=True, from_revision=3) as changes:
                assert [(await anext(changes)).key for _ in range(2)] == ["k2", "k3"]

    run(main())


def test_a_watch_whose_next_changes_are_gone_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            nodes(tmp_path, 1) as group,
            Plain(group.paths, timeout_s=TIMEOUT_S) as client,
            client.watch_keys("k") as changes,
        ):
            await client.put("k", b"seen")
            await anext(changes)
            node = group.hosts[0]
            await group.stop(node)
            node.apply_commands([SetSetting("history_keep", 0)])
            node.apply_commands([Put("k", b"") for _ in range(3000)])
            await group.start(node)
            with pytest.raises(HistoryCompacted) as gone:
                await anext(changes)
            assert gone.value.oldest == node.machine.compacted_revision + 1
            assert (gone.value.code, gone.value.happened) == (ErrorCode.COMPACTED, "no")

    run(main())


def test_events_are_followed(tmp_path: Path) -> None:
    async def main() -> None:
        node = SingleNode()
        async with serving(node, tmp_path / "s"), Plain(tmp_path / "s") as client:
            node.happen("old")
            async with client.follow_events(limit=1) as events:
                node.happen("new")
                assert [(await anext(events)).kind for _ in range(2)] == ["old", "new"]

    run(main())


def test_a_slow_watcher_holds_up_nobody_else(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            serving(SingleNode(), tmp_path / "s"),
            Plain(tmp_path / "s") as client,
            client.watch_keys("", prefix=True) as slow,
        ):
            for first in range(0, 5000, 500):
                await asyncio.gather(
                    *(client.put(f"k{first + number}", b"v") for number in range(500))
                )
            assert (await client.status()).last_applied == 5000
            seen = [(await anext(slow)).revision for _ in range(5000)]
            assert seen == list(range(1, 5001))

    run(main())
