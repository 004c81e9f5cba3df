"""What version 1 wrote is read for ever, and what is written is what version 1 wrote."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from raft_agent import wire
from raft_agent.consensus.types import Vote
from raft_agent.machine.machine import Machine
from raft_agent.storage.store import Store
from raft_agent.transport.codec import decode_message, decode_version, encode_version
from raft_agent.transport.handshake import decode_hello, encode_hello
from raft_agent.wire import FrameType
from tests.golden.make import (
    CLUSTER_ID,
    CONFIGURATION,
    DATA,
    FRAMES,
    MEMBER_ID,
    SNAPSHOT_INDEX,
    STATES,
    VERSION_1,
    batches,
    contents,
    frames,
    machine_at,
    states,
    write_data_dir,
)
from tests.unit.transport.messages import ONE_OF_EACH


def golden_frames() -> dict[str, bytes]:
    return {name.removesuffix(".bin"): data for name, data in contents(VERSION_1 / FRAMES).items()}


def test_frames_are_written_as_they_were() -> None:
    assert frames() == golden_frames()


def test_there_is_a_frame_of_each_type() -> None:
    assert set(golden_frames()) == {frame_type.name.lower() for frame_type in FrameType}


def test_frames_are_read_and_lead_to_the_same_bytes() -> None:
    reader = wire.FrameReader(frozenset(FrameType))
    messages = []
    for name, data in golden_frames().items():
        if name.startswith("tls_"):
            assert data == wire.bare_header(FrameType[name.upper()], 0)
            continue
        (frame,) = reader.feed(data)
        kind = FrameType(frame.type)
        assert kind.name.lower() == name
        if kind in (FrameType.HELLO, FrameType.HELLO_REPLY):
            assert encode_hello(kind, decode_hello(frame)) == data
        elif kind in (FrameType.VERSION_ASK, FrameType.VERSION_PROMISE):
            assert encode_version(kind, frame.sender, decode_version(frame)) == data
        elif kind < FrameType.CLIENT_REQUEST:
            messages.append(decode_message(frame))
    assert len(messages) == len(ONE_OF_EACH)
    assert set(messages) == set(ONE_OF_EACH)


def test_a_data_directory_is_written_as_it_was(tmp_path: Path) -> None:
    write_data_dir(tmp_path / DATA)
    assert contents(tmp_path / DATA) == contents(VERSION_1 / DATA)


def test_a_data_directory_is_read_as_it_was_meant(tmp_path: Path) -> None:
    data_dir = tmp_path / DATA
    shutil.copytree(VERSION_1 / DATA, data_dir)
    store = Store.open(data_dir)
    try:
        found = store.recovered
        assert (found.member_id, found.cluster_id) == (MEMBER_ID, CLUSTER_ID)
        assert found.vote == Vote(2, MEMBER_ID)
        assert (found.word_us, found.promised_version, found.warnings) == (150_000, 1, [])
        assert found.snapshot is not None
        assert (found.snapshot.index, found.snapshot.term) == (SNAPSHOT_INDEX, 2)
        assert found.snapshot.configuration == CONFIGURATION
        assert found.log.configurations == ((1, CONFIGURATION),)
        log = batches()
        assert store.read(1, 1 << 20) == tuple(log)
        machine = Machine.restore(store.snapshots.blocks(SNAPSHOT_INDEX))
        assert machine.digest() == machine_at(SNAPSHOT_INDEX).digest()
        for batch in log:
            if batch.first_index > SNAPSHOT_INDEX:
                machine.apply(batch)
        assert machine.digest() == machine_at(log[-1].last_index).digest()
    finally:
        store.close()


def test_a_state_comes_to_the_number_that_it_came_to() -> None:
    """Members of two releases compare these numbers, and a log holds them: with another way to make
    them in the same version, members would take themselves or each other for wrong."""
    assert states() == (VERSION_1 / STATES).read_text()


@pytest.mark.parametrize("name", sorted(contents(VERSION_1 / DATA)))
def test_what_is_read_is_left_as_it_is(tmp_path: Path, name: str) -> None:
    """Starting and ending on it changes nothing: an older program may go on with it."""
    data_dir = tmp_path / DATA
    shutil.copytree(VERSION_1 / DATA, data_dir)
    Store.open(data_dir).close()
    assert (data_dir / name).read_bytes() == (VERSION_1 / DATA / name).read_bytes()
