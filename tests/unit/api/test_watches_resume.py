"""Watches of the asyncio client go on wherever they can."""

from __future__ import annotations

import asyncio
from pathlib import Path

from raft_agent.api import protocol
from raft_agent.api.client import AgentNotReachable, Client, KeyWatch
from tests.unit.api.single_node import SingleNode, run, serving


def test_a_watch_goes_on_to_the_next_agent_when_one_ends_in_that_moment(tmp_path: Path) -> None:
    """It takes the connection and is gone before it answers, as a process that is killed."""

    async def main() -> None:
        taken = asyncio.Event()

        async def vanish(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            taken.set()
            writer.transport.abort()

        gone = tmp_path / "gone.sock"
        dying = await asyncio.start_unix_server(vanish, gone)
        host = SingleNode()
        async with (
            serving(host, tmp_path / "there.sock"),
            Client([gone, tmp_path / "there.sock"]) as client,
            client.watch_messages() as watch,
        ):
            assert taken.is_set()
            await client.send("after all")
            assert (await anext(watch)).text == "after all"
        dying.close()

    run(main())


class ScriptedLink:
    """A connection that gives these events, and is lost behind the last one."""

    def __init__(self, events: list[protocol.KeyEvent], asked: list[protocol.Request]) -> None:
        self._events = list(events)
        self._asked = asked
        self.closed = False

    def ask(self, request: protocol.Request) -> asyncio.Future[protocol.StreamStarted]:
        self._asked.append(request)
        future: asyncio.Future[protocol.StreamStarted] = asyncio.get_running_loop().create_future()
        future.set_result(protocol.StreamStarted(0, 0))
        return future

    async def next_item(self) -> protocol.KeyEvent:
        if not self._events:
            raise AgentNotReachable("lost")
        return self._events.pop(0)

    def close(self) -> None:
        self.closed = True


class ScriptedConnector:
    has_others = False

    def __init__(self, *scripts: list[protocol.KeyEvent]) -> None:
        self._scripts = list(scripts)
        self.asked: list[protocol.Request] = []

    async def connect(self, _deadline: float) -> ScriptedLink:
        return ScriptedLink(self._scripts.pop(0), self.asked)

    async def may_go_on(self, _deadline: float) -> bool:
        return False

    def deadline(self) -> float:
        return asyncio.get_running_loop().time() + 60


def event(key: str, revision: int, *, more: bool = False, kind: str = "put") -> protocol.KeyEvent:
    return protocol.KeyEvent(kind, key, b"", revision, revision, 0, more)


def watching(connector: ScriptedConnector, *, bookmarks: bool = False) -> KeyWatch:
    request = protocol.WatchKeys(1, "", True)
    return KeyWatch(connector, request, bookmarks=bookmarks)  # type: ignore[arg-type]


def from_revisions(connector: ScriptedConnector) -> list[int]:
    asked = connector.asked
    return [item.from_revision for item in asked if isinstance(item, protocol.WatchKeys)]


def test_what_has_come_of_a_revision_is_dropped_with_the_connection_and_comes_again() -> None:
    async def main() -> None:
        whole = [event("a", 2, more=True), event("b", 2, more=True), event("c", 2)]
        connector = ScriptedConnector([event("x", 1), *whole[:2]], whole)
        watch = watching(connector)
        assert await watch.together() == [event("x", 1)]
        assert await watch.together() == whole
        assert from_revisions(connector) == [0, 2]

    run(main())


def test_events_one_by_one_come_once_their_revision_is_complete() -> None:
    async def main() -> None:
        whole = [event("a", 2, more=True), event("b", 2)]
        watch = watching(ScriptedConnector(whole[:1], whole))
        assert [await anext(watch), await anext(watch)] == whole

    run(main())


def test_a_bookmark_moves_the_place_at_which_a_watch_goes_on() -> None:
    async def main() -> None:
        bookmark = event("", 70, kind="bookmark")
        silent = ScriptedConnector([bookmark], [event("a", 71)])
        assert await anext(watching(silent)) == event("a", 71)
        assert from_revisions(silent) == [0, 71]
        telling = watching(ScriptedConnector([bookmark]), bookmarks=True)
        assert await telling.together() == [bookmark]

    run(main())


class LateConnector(ScriptedConnector):
    """From the second connection on each takes until the test lets it come."""

    def __init__(self, *scripts: list[protocol.KeyEvent]) -> None:
        super().__init__(*scripts)
        self.links: list[ScriptedLink] = []
        self.connecting = asyncio.Event()
        self.may_come = asyncio.Event()

    async def connect(self, deadline: float) -> ScriptedLink:
        if self.links:
            self.connecting.set()
            await self.may_come.wait()
        if not self._scripts:
            raise AgentNotReachable("nobody answers")
        self.links.append(await super().connect(deadline))
        return self.links[-1]


async def close_while_it_connects_anew(connector: LateConnector) -> None:
    watch = watching(connector)
    assert await anext(watch) == event("a", 1)
    following = asyncio.create_task(anext(watch, None))
    await connector.connecting.wait()
    await watch.close()
    connector.may_come.set()
    assert await following is None


def test_a_watch_that_is_closed_while_it_connects_anew_leaves_no_connection() -> None:
    async def main() -> None:
        connector = LateConnector([event("a", 1)], [event("b", 2)])
        await close_while_it_connects_anew(connector)
        assert [link.closed for link in connector.links] == [True, True]

    run(main())


def test_a_watch_that_is_closed_while_nobody_answers_ends() -> None:
    run(close_while_it_connects_anew(LateConnector([event("a", 1)])))


def test_a_watch_that_was_closed_does_not_begin() -> None:
    async def main() -> None:
        connector = LateConnector([event("a", 1)])
        watch = watching(connector)
        await watch.close()
        assert await anext(watch, None) is None
        assert connector.links == []

    run(main())
