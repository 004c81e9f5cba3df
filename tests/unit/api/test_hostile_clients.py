"""Bytes that no client of this protocol sends: they cost their sender the connection, no more."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft_agent import wire
from tests.unit.api.raw_client import RawClient, connected, request_frame, with_node
from tests.unit.api.single_node import SingleNode, run, serving

BAD_FRAMES = [
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl/8\r\n\r\n", "frame starts with"),
    (wire.encode(wire.FrameType.HEARTBEAT, b""), "type 8|type 9"),
    (wire.encode(wire.FrameType.CLIENT_REPLY, b"\x90"), "type 33"),
    (wire.encode(wire.FrameType.CLIENT_REQUEST, b"\x90", flags=2), "unknown flags 0x2"),
    (request_frame({"op": "status"}), "no array of requests"),
    (request_frame(5), "no array of requests"),
    (wire.encode(wire.FrameType.CLIENT_REQUEST, b""), "no array of requests"),
    (wire.encode(wire.FrameType.CLIENT_REQUEST, b"\x91" * 10_000), "can't be read|no array"),
    (wire.encode(wire.FrameType.CLIENT_REQUEST, b"[" * 10_000, flags=1), "can't be read|no array"),
    (request_frame([["status"]]), "no array of an op, an id"),
    (request_frame([["status", -1]]), "no number from 0"),
    (request_frame([["status", 2**63]]), "no number from 0"),
    (request_frame([["status", "one"]]), "no number from 0"),
    (request_frame([["status", True]]), "no number from 0"),
    (request_frame(["status"]), "no array of an op, an id"),
    (request_frame([["status", 1]] * 16_385), "frame of 16385 requests"),
    (wire.HEADER.pack(wire.MAGIC, 1, 32, 0, (32 << 20) + 1, 0, 0, 0, 0, 0, 0), "over the limit"),
    (wire.HEADER.pack(wire.MAGIC, 2, 32, 0, 0, 0, 0, 0, 0, 0, 0), "version 2"),
]


@pytest.mark.parametrize(("data", "reason"), BAD_FRAMES)
def test_what_can_not_be_read_closes_that_connection_with_one_line(
    tmp_path: Path, data: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def check(client: RawClient, _node: SingleNode) -> None:
        async with connected(tmp_path / "s") as other:
            client.writer.write(data)
            assert await client.closed()
            assert (await other.ask(["status", 1]))[0][1] is None

    with caplog.at_level(logging.WARNING):
        with_node(tmp_path, check)
    assert len(caplog.records) == 1
    assert f"closed the connection of client pid {os.getpid()}" in caplog.text
    assert any(part in caplog.text for part in reason.split("|"))


def test_what_was_asked_before_the_bad_frame_is_answered(tmp_path: Path) -> None:
    async def check(client: RawClient, _node: SingleNode) -> None:
        client.send(["status", 1])
        client.writer.write(request_frame(5))
        assert [item[0] for item in await client.items()] == [1]
        assert await client.closed()

    with_node(tmp_path, check)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=200),
            st.binary(max_size=60).map(lambda body: wire.encode(32, body)),
            st.binary(max_size=60).map(lambda body: wire.encode(32, body, flags=1)),
            st.recursive(
                st.one_of(
                    st.none(),
                    st.booleans(),
                    st.integers(-(2**63), 2**64 - 1),
                    st.text(max_size=5),
                    st.binary(max_size=5),
                    st.floats(allow_nan=False),
                    st.sampled_from(["put", "get", "send", "list", "watch_keys", "cancel"]),
                ),
                lambda inner: st.lists(inner, max_size=5),
                max_leaves=12,
            ).map(lambda body: wire.encode(32, msgspec.msgpack.encode(body))),
        ),
        max_size=4,
    )
)
def test_no_bytes_bring_the_server_down(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes]
) -> None:
    failures: list[dict[str, Any]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: failures.append(context))
        path = tmp_path_factory.mktemp("garbage") / "s"
        async with serving(SingleNode(), path):
            async with connected(path) as client:
                for chunk in chunks:
                    client.writer.write(chunk)
                client.writer.write_eof()
                assert await client.closed()
            async with connected(path) as client:
                assert (await client.ask(["status", 1]))[0][1] is None

    run(main())
    assert failures == []
