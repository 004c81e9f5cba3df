"""How many nodes that nobody knows may be connected, and how long half a frame may take."""

from __future__ import annotations

import logging

import pytest

from raft_agent.consensus import types
from raft_agent.transport import codec, connection, unknown
from raft_agent.transport.transport import PeerTarget
from raft_agent.wire import FrameError, FrameReader
from tests.unit.transport.nodes import HEARTBEAT, Node, RawPeer, hello_frame, run, started
from tests.unit.transport.test_hostile import HEARTBEAT_FRAME, STRANGER, assert_it_still_serves


def test_unknown_nodes_are_limited_and_members_are_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(unknown, "MAX_UNKNOWN", 3)

    async def test() -> None:
        node = Node(1)
        async with started(node):
            peers = [await RawPeer.dial_as(node, Node(number).hello()) for number in (20, 21, 22)]
            late = await RawPeer.dial(node)
            await late.send(hello_frame(Node(23)))
            reply = await late.receive()
            assert reply is not None
            assert b"3 nodes that are no members are connected already" in reply.body
            await late.closed()
            await node.until_refused("crowded")
            # An id that has a connection may make a newer one; a member always may.
            peers.append(await RawPeer.dial_as(node, Node(20).hello()))
            node.transport.set_peers([PeerTarget("node-09", "127.0.0.1:1", 9)])
            await assert_it_still_serves(node)
            for peer in (*peers, late):
                peer.close()

    with caplog.at_level(logging.WARNING):
        run(test)
    assert len([r for r in caplog.records if "no members" in r.getMessage()]) == 1


@pytest.mark.parametrize("size", [4, 40, len(HEARTBEAT_FRAME) - 1])
def test_half_a_frame_of_a_member_ends_its_connection(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HALF_FRAME_S", 0.05)

    async def test() -> None:
        node = Node(1)
        async with started(node):
            peer = await RawPeer.dial_as(node, STRANGER.hello())
            await peer.send(HEARTBEAT_FRAME + HEARTBEAT_FRAME[:size])
            await peer.closed()
            await node.until_refused("half_frame")
            assert node.transport.reject_counts == {"half_frame": 1}
            peer.close()

    run(test)


def test_a_member_whose_frames_come_is_not_taken_for_one_that_hangs() -> None:
    """Each look finds half a frame, but not the same."""

    async def test() -> None:
        node = Node(1)
        async with started(node):
            peer = await RawPeer.dial_as(node, STRANGER.hello())
            first, rest = HEARTBEAT_FRAME[:-1], HEARTBEAT_FRAME[-1:]
            await peer.send(HEARTBEAT_FRAME + first)
            await node.until("message", 2, HEARTBEAT)
            (stands,) = node.transport._local.open
            frames_read = stands._frames_read
            await peer.send(rest + first)
            await node.until("message", 2, HEARTBEAT)
            stands._look_at_half_frame(frames_read)
            assert not node.transport.reject_counts
            stands._look_at_half_frame(stands._frames_read)
            assert node.transport.reject_counts == {"half_frame": 1}
            await peer.closed()
            peer.close()

    run(test)


def test_more_names_than_a_first_start_has_are_refused_before_they_are_made() -> None:
    def asked(count: int) -> types.Message:
        message = types.BootstrapAsk(0, 1, "node-01", "a:1", ("n",) * count)
        (frame,) = FrameReader(codec.CALL_FRAMES).feed(codec.encode_message(2, message))
        return codec.decode_message(frame)

    assert isinstance(asked(codec.MAX_NAMES), types.BootstrapAsk)
    with pytest.raises(FrameError, match="length <= 1024"):
        asked(codec.MAX_NAMES + 1)
