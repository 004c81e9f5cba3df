"""Who asks over HTTP gets what there is to read, within limits, and changes nothing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.resources import files
from typing import Any

import aiohttp
import pytest

from raft_agent.http import limits, server
from raft_agent.http.server import HttpServer
from tests.e2e.agents import free_ports
from tests.unit.http.sources import FakeSource

HANG_S = 30
PAGE = files("raft_agent.http").joinpath("page")

Test = Callable[[HttpServer, aiohttp.ClientSession], Coroutine[Any, Any, None]]


@asynccontextmanager
async def started(source: FakeSource) -> AsyncIterator[HttpServer]:
    served = HttpServer(source, f"127.0.0.1:{free_ports(1)[0]}")
    await served.start()
    try:
        yield served
    finally:
        await served.close()


def run(test: Test, source: FakeSource | None = None) -> None:
    async def guarded() -> None:
        async with asyncio.timeout(HANG_S), started(source or FakeSource()) as served:
            base = f"http://127.0.0.1:{served.port}"
            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(base, connector=connector) as session:
                await test(served, session)

    asyncio.run(guarded())


def test_an_agent_that_answers_is_alive() -> None:
    async def test(_: HttpServer, session: aiohttp.ClientSession) -> None:
        async with session.get("/healthz") as answer:
            assert (answer.status, await answer.text()) == (200, "alive\n")

    run(test)


def test_readiness_comes_with_its_reason() -> None:
    source = FakeSource()

    async def test(_: HttpServer, session: aiohttp.ClientSession) -> None:
        async with session.get("/readyz") as answer:
            assert (answer.status, await answer.text()) == (200, "ready\n")
        source.unready = "no leader is known"
        async with session.get("/readyz") as answer:
            assert answer.status == 503
            assert await answer.text() == "not ready: no leader is known\n"

    run(test, source)


def test_metrics_are_what_prometheus_reads() -> None:
    async def test(_: HttpServer, session: aiohttp.ClientSession) -> None:
        async with session.get("/metrics") as answer:
            assert answer.content_type == "text/plain"
            assert "raft_term 7.0\n" in await answer.text()

    run(test)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/", "/metrics", "/stream", "/nothing"])
def test_nothing_but_reading_is_answered(method: str, path: str) -> None:
    async def test(_: HttpServer, session: aiohttp.ClientSession) -> None:
        async with session.request(method, path) as answer:
            assert answer.status == 405
            assert answer.headers["Allow"] == "GET,HEAD"

    run(test)


def test_every_answer_says_what_a_browser_may_do_with_it() -> None:
    async def test(_: HttpServer, session: aiohttp.ClientSession) -> None:
        for path in ("/", "/main.js", "/metrics", "/stream", "/nothing"):
            async with session.get(path) as answer:
                policy = answer.headers["Content-Security-Policy"]
                assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
                assert "unsafe" not in policy
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert answer.headers["Referrer-Policy"] == "no-referrer"
                assert "Access-Control-Allow-Origin" not in answer.headers
                assert "aiohttp" not in answer.headers["Server"]

    run(test)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:9555", 200),
        ("node.localhost", 200),
        ("127.0.0.1:9555", 200),
        ("[::1]:9555", 200),
        ("192.0.2.7", 200),
        ("attacker.example", 421),
        ("attacker.example:9555", 421),
        ("127.0.0.1.attacker.example", 421),
        ("localhost.attacker.example", 421),
        ("[attacker.example]", 421),
        ("", 421),
    ],
)
def test_a_site_whose_name_leads_to_this_machine_reads_nothing(host: str, status: int) -> None:
    """DNS rebinding: the browser believes that what is here is that site's."""

    async def test(_: HttpServer, session: aiohttp.ClientSession) -> None:
        for path in ("/", "/metrics", "/stream"):
            async with session.get(path, headers={"Host": host}) as answer:
                assert answer.status == status, path

    run(test)


def test_what_is_for_others_is_asked_for_under_any_name() -> None:
    async def test(session: aiohttp.ClientSession) -> None:
        async with session.get("/healthz", headers={"Host": "raft.example"}) as answer:
            assert answer.status == 200

    async def main() -> None:
        served = HttpServer(FakeSource(), f"0.0.0.0:{free_ports(1)[0]}")
        await served.start()
        try:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{served.port}") as session:
                await test(session)
        finally:
            await served.close()

    asyncio.run(main())


def test_the_page_is_served_with_all_that_it_needs() -> None:
    async def test(_: HttpServer, session: aiohttp.ClientSession) -> None:
        async with session.get("/") as answer:
            assert answer.content_type == "text/html"
            page = await answer.text()
        needed = set(re.findall(r'(?:src|href)="([^"]+)"', page)) - {"metrics", "healthz", "readyz"}
        assert {"style.css", "main.js", "icon.svg"} <= needed
        seen = set()
        while needed:
            name = needed.pop()
            seen.add(name)
            async with session.get(f"/{name}") as answer:
                assert answer.status == 200, name
                text = await answer.text()
            if name.endswith(".js"):
                assert answer.content_type == "text/javascript"
                needed |= set(re.findall(r'from "\./([^"]+)"', text)) - seen
        assert seen | {"index.html"} == {file.name for file in PAGE.iterdir()}

    run(test)


@pytest.mark.parametrize("file", sorted(PAGE.iterdir(), key=str), ids=lambda file: file.name)
def test_the_page_takes_nothing_from_elsewhere_and_makes_no_markup_of_texts(file: Any) -> None:
    text = file.read_text()
    assert set(re.findall(r"https?://[^\s\"']+", text)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
    if file.name.endswith(".html"):
        # The Content-Security-Policy would drop them.
        assert not re.search(r"<style|<script(?! [^>]*src=)|\son\w+=|\sstyle=", text)


def test_a_stream_goes_on_with_what_happens() -> None:
    source = FakeSource()

    async def test(_: HttpServer, session: aiohttp.ClientSession) -> None:
        async with session.get("/stream") as answer:
            assert answer.content_type == "text/event-stream"
            assert await answer.content.readline() == b"event: hello\n"
            source.happen("leader_elected")
            while b"leader_elected" not in await answer.content.readline():
                pass

    run(test, source)


def test_more_pages_than_allowed_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_STREAMS", 2)

    async def test(_: HttpServer, session: aiohttp.ClientSession) -> None:
        async with AsyncExitStack() as stack:
            for _stream in range(2):
                answer = await stack.enter_async_context(session.get("/stream"))
                await answer.content.readline()
            async with session.get("/stream") as refused:
                assert refused.status == 503
                assert await refused.text() == "2 pages are open already; close one of them\n"
            async with session.get("/healthz") as other:
                assert other.status == 200

    run(test)


def test_pages_that_wait_for_the_leader_have_their_places_already(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else whoever asks for many at once holds all connections, and the agent looks dead."""
    monkeypatch.setattr(server, "MAX_STREAMS", 2)
    monkeypatch.setattr(limits, "MAX_CONNECTIONS", 6)
    source = FakeSource()
    source.leads = False

    async def test(_: HttpServer, session: aiohttp.ClientSession) -> None:
        answers = await asyncio.gather(*(session.get("/stream") for _page in range(6)))
        statuses = sorted(answer.status for answer in answers)
        assert statuses == [200] * 2 + [503] * 4
        async with session.get("/healthz") as probe:
            assert probe.status == 200
        for answer in answers:
            answer.close()

    run(test, source)


def test_of_too_many_connections_the_one_that_has_asked_nothing_for_longest_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever holds all of them must not make the agent look dead."""
    monkeypatch.setattr(limits, "MAX_CONNECTIONS", 2)

    async def test(served: HttpServer, session: aiohttp.ClientSession) -> None:
        first, second = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(2)]
        first[1].write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await first[0].readuntil(b"alive\n")
        async with session.get("/healthz") as answer:
            assert answer.status == 200
        assert await second[0].read() == b""
        for _, writer in (first, second):
            writer.close()
            await writer.wait_closed()

    run(test)


def test_when_all_connections_are_being_served_one_more_is_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "MAX_CONNECTIONS", 2)

    async def test(_: HttpServer, session: aiohttp.ClientSession) -> None:
        async with session.get("/stream") as one, session.get("/stream") as other:
            for stream in (one, other):
                await stream.content.readline()
            async with session.get("/healthz") as answer:
                assert answer.status == 503
                assert await answer.text() == "too many connections; try again later\n"

    run(test)


def test_a_connection_that_asks_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_FIRST_REQUEST_S", 0.01)

    async def test(served: HttpServer, _: aiohttp.ClientSession) -> None:
        for begun in (b"", b"GET / HT"):
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(begun)
            assert await reader.read() == b""
            writer.close()

    run(test)


def test_an_address_that_is_taken_is_refused_with_what_to_do() -> None:
    async def test(served: HttpServer, _: aiohttp.ClientSession) -> None:
        second = HttpServer(FakeSource(), f"127.0.0.1:{served.port}")
        with pytest.raises(OSError, match=r"can't serve HTTP on .*already in use.*http_addr"):
            await second.start()
        await second.close()

    run(test)


def test_an_open_page_does_not_hold_up_the_agents_end() -> None:
    async def test() -> None:
        async with asyncio.timeout(HANG_S), AsyncExitStack() as stack:
            served = HttpServer(FakeSource(), f"127.0.0.1:{free_ports(1)[0]}")
            await served.start()
            session = await stack.enter_async_context(aiohttp.ClientSession())
            url = f"http://127.0.0.1:{served.port}/stream"
            answer = await stack.enter_async_context(session.get(url))
            await answer.content.readline()
            await served.close()
            while await answer.content.readline():
                pass

    asyncio.run(test())


def test_a_flood_of_what_is_no_http_leaves_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async def test(served: HttpServer, _: aiohttp.ClientSession) -> None:
        for _number in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(b"GET / HTTP/1.1\r\nHo\0st: a\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.0 400 ")
            writer.close()

    with caplog.at_level("WARNING"):
        run(test)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "127.0.0.1: refused: " in record.getMessage()
    assert "\n" not in record.getMessage()
    assert record.exc_info is None


def test_who_comes_and_goes_without_a_word_is_not_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "_MAX_SILENT", 5)
    monkeypatch.setattr(limits, "_SETTLE_S", 0.0)

    async def test(served: HttpServer, _: aiohttp.ClientSession) -> None:
        assert served._gate is not None
        for _number in range(30):
            _reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.close()
            await writer.wait_closed()
            while served._runner is not None and served._runner.server.connections:
                await asyncio.sleep(0.001)
        assert len(served._gate._silent) <= 6
        assert len(served._gate._awaited) <= 6

    run(test)
