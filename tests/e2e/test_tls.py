"""Real agents under TLS: who gets in, and that those who don't disturb nobody."""

from __future__ import annotations

import asyncio
import re
import threading
import urllib.request
from pathlib import Path

import msgspec
import pytest

from raft_agent import wire
from raft_agent.api import protocol
from raft_agent.transport.handshake import Hello, encode_hello
from raft_agent.wire import FrameType
from tests.e2e.agents import Agent, free_ports, local_cluster, wait_for
from tests.e2e.intruders import KINDS, Intruder, Papers, flood, intrude
from tests.e2e.writers import Writers

NAMES = ["node-01", "node-02", "node-03"]
_REJECTED = re.compile(r'^raft_transport_rejects_total\{reason="(\w+)"\} (\S+)$', re.MULTILINE)


def address(agent: Agent) -> tuple[str, int]:
    host, _, port = agent.address.rpartition(":")
    return host, int(port)


def rejected(http_port: int) -> dict[str, int]:
    """How many connections the agent has refused, by reason."""
    url = f"http://127.0.0.1:{http_port}/metrics"
    with urllib.request.urlopen(url, timeout=20) as page:
        text = page.read().decode()
    return {reason: int(float(count)) for reason, count in _REJECTED.findall(text)}


def test_nobody_gets_in_who_should_not_and_one_line_says_why(tmp_path: Path) -> None:
    papers = Papers(tmp_path, NAMES)
    [port] = free_ports(1)
    with local_cluster(extra=papers.section, start=False) as cluster:
        target = cluster.agents["node-01"]
        target.environment["RAFT_SERVER_HTTP_ADDR"] = f"127.0.0.1:{port}"
        cluster.start()
        leader = cluster.leader()
        for kind, (_, reason) in KINDS.items():
            before = rejected(port)
            asyncio.run(intrude(papers, address(target), kind))
            after = before | {reason: before.get(reason, 0) + 1}
            wait_for(f"{kind}: {reason}", lambda after=after: rejected(port) == after or None)
        lines = re.findall(r"closed the connection with .*", target.log_text())
        assert len(lines) == len({reason for _, reason in KINDS.values()}), lines
        assert cluster.leader() is leader


def test_what_a_client_sends_that_is_no_tls_closes_its_connection_with_one_line(
    tmp_path: Path,
) -> None:
    papers = Papers(tmp_path, NAMES)
    with local_cluster(1, extra=papers.section, lone="node-01") as cluster:
        agent = cluster.leader()

        async def ask() -> None:
            intruder = Intruder(papers, address(agent))
            channel = await intruder.shaken("client")
            request = wire.encode(
                FrameType.CLIENT_REQUEST, protocol.ENCODER.encode([protocol.Status(1)])
            )
            await intruder.send(*channel.seal([request]))
            assert await intruder.receive(channel)
            await intruder.send(wire.bare_header(FrameType.TLS_FRAME, 99), bytes(99))
            await intruder.end()

        asyncio.run(ask())
        wait_for("a line", lambda: "TLS records that can't be read" in agent.log_text() or None)
        [line] = re.findall(r".*TLS records that can't be read.*", agent.log_text())
        assert "closed the connection of " in line
        assert "node-02 (admin)" in line


def test_a_node_with_a_certificate_that_is_no_member_has_nothing_passed_on(tmp_path: Path) -> None:
    papers = Papers(tmp_path, NAMES)
    hello = Hello(1, 1, "", 9, "node-09", "127.0.0.1:1")
    asked = (protocol.Put(1, "k", b"v"), protocol.Join(2, "node-09", "127.0.0.1:1"))

    async def ask(agent: Agent) -> list[protocol.Reply]:
        intruder = Intruder(papers, address(agent))
        channel = await intruder.shaken("other")
        await intruder.send(*channel.seal([encode_hello(FrameType.HELLO, hello)]))
        reader = wire.FrameReader(frozenset({FrameType.HELLO_REPLY, FrameType.FORWARD_REPLY}))
        replies = []
        frames = reader.feed(await intruder.receive(channel))
        assert frames[0].type == FrameType.HELLO_REPLY
        for request in asked:
            body = protocol.ENCODER.encode(request)
            frame = wire.encode(FrameType.FORWARD_REQUEST, body, sender=9, request_id=request.id)
            await intruder.send(*channel.seal([frame]))
            frames = []
            while not frames:
                frames = reader.feed(await intruder.receive(channel))
            replies.append(msgspec.msgpack.decode(frames[0].body, type=protocol.Reply))
        return replies

    with local_cluster(1, extra=papers.section, lone="node-01") as cluster:
        agent = cluster.leader()
        for reply in asyncio.run(ask(agent)):
            assert reply.error is not None
            assert reply.error.code == "permission_denied"
        assert "node 0000000000000009: join name=node-09" in agent.log_text()


def test_a_node_without_tls_does_not_come_into_a_cluster_with_it(tmp_path: Path) -> None:
    papers = Papers(tmp_path, NAMES)
    with local_cluster(extra=papers.section, start=False) as cluster:
        lone = cluster.agents["node-03"]
        plain = lone.directory / "raft.toml"
        plain.write_text(plain.read_text().replace(papers.section.replace("NAME", "node-03"), ""))
        cluster.start()
        wait_for(
            "a line at the node without",
            lambda: "it speaks TLS, and [tls] is not set here" in lone.log_text() or None,
        )
        other = cluster.agents["node-01"]
        wait_for(
            "a line at a node with TLS",
            lambda: "where TLS is spoken: set [tls] at both ends" in other.log_text() or None,
        )


@pytest.mark.long
def test_a_flood_of_intruders_fails_no_write_and_starts_no_election(tmp_path: Path) -> None:
    """10,000 connections a minute, of all kinds, at the leader."""
    papers = Papers(tmp_path, NAMES)
    # The machine may be busy: it is not the timers that are tested.
    timing = "[timing]\nelection_timeout_min_ms = 1000\nelection_timeout_max_ms = 2000\n"
    with local_cluster(extra=timing + papers.section) as cluster:
        leader = cluster.leader()
        before = leader.status()
        assert before is not None
        sockets = {agent.name: agent.socket_path for agent in cluster}
        writers = Writers(sockets, 8)
        ends = asyncio.Event()
        made: list[int] = []

        async def intruders() -> None:
            loop = asyncio.get_running_loop()
            loop.call_later(30, ends.set)
            made.append(await flood(papers, address(leader), 10_000 / 60, ends))

        with writers.writing():
            thread = threading.Thread(target=lambda: asyncio.run(intruders()))
            thread.start()
            thread.join()
        assert made[0] > 3000
        assert writers.errors == []
        assert len(writers.acks) > 1000
        after = cluster.leader().status()
        assert after is not None
        assert (after.node_id, after.term) == (before.node_id, before.term)
