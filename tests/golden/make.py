"""The bytes of version 1: frames of each type, a data directory with all its files, and what the
states come to that its log leads to.

`python -m tests.golden.make` writes them anew into `version-1/`. Once a version has been released
its files never change again: a later version gets a folder of its own, and goes on reading these.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import msgspec

from raft_agent import wire
from raft_agent.api import protocol
from raft_agent.consensus.batch import Batch, BatchKind, encode
from raft_agent.consensus.types import Configuration, Member, Vote
from raft_agent.machine.blocks import encode_block
from raft_agent.machine.commands import (
    AddExport,
    CloseSession,
    Command,
    Delete,
    ExpireLease,
    GrantLease,
    InSession,
    KeepLease,
    KeepSession,
    Once,
    OpenSession,
    Put,
    PutLeased,
    RaiseVersion,
    RemoveExport,
    RevokeLease,
    SendMessage,
    SetSetting,
    Transact,
    encode_commands,
    join_commands,
)
from raft_agent.machine.exports import Export
from raft_agent.machine.machine import Machine
from raft_agent.machine.transactions import Compare, DeleteKey, GetKey, PutKey, Relation, Target
from raft_agent.storage.datadir import IDENTITY_NAME, VOTE_NAME
from raft_agent.storage.files import replace_file
from raft_agent.storage.format import encode_identity, encode_vote
from raft_agent.storage.store import Store
from raft_agent.transport.codec import encode_message, encode_version
from raft_agent.transport.handshake import Hello, encode_hello
from raft_agent.wire import FrameType
from tests.unit.machine.batches import digest_of
from tests.unit.storage.support import Driver
from tests.unit.transport.messages import ONE_OF_EACH

VERSION_1 = Path(__file__).parent / "version-1"
FRAMES = "frames"
DATA = "data"
STATES = "states.txt"

MEMBER_ID = 0x1122334455667788
CLUSTER_ID = "0123456789abcdef" * 2
CONFIGURATION = Configuration(
    CLUSTER_ID, (Member(MEMBER_ID, "node-01", "127.0.0.1:5555"),), (MEMBER_ID,)
)
SNAPSHOT_INDEX = 18
SEGMENT_BYTES = 12 << 10

_TIME_MS = 1_700_000_000_000
_REQUEST_ID = bytes(range(16))


def frames() -> dict[str, bytes]:
    """One frame of each type, by its name."""
    hello = Hello(
        oldest=1,
        newest=1,
        cluster_id=CLUSTER_ID,
        member_id=MEMBER_ID,
        name="node-01",
        address="127.0.0.1:5555",
        refusal="",
        purpose="bulk",
        in_force=1,
        promised=1,
        program="0.1.0",
    )
    refusal = msgspec.structs.replace(hello, refusal="no", purpose="")
    put = protocol.ENCODER.encode([protocol.Put(1, "key", b"value")])
    reply = protocol.ENCODER.encode([[1, None, {"index": 5, "term": 1, "revision": 2}]])
    made = {
        FrameType.HELLO: encode_hello(FrameType.HELLO, hello),
        FrameType.HELLO_REPLY: encode_hello(FrameType.HELLO_REPLY, refusal),
        FrameType.VERSION_ASK: encode_version(FrameType.VERSION_ASK, MEMBER_ID, 2),
        FrameType.VERSION_PROMISE: encode_version(FrameType.VERSION_PROMISE, MEMBER_ID, 2),
        FrameType.CLIENT_REQUEST: wire.encode(FrameType.CLIENT_REQUEST, put, count=1),
        FrameType.CLIENT_REPLY: wire.encode(FrameType.CLIENT_REPLY, reply, count=1),
        FrameType.CLIENT_PUSH: wire.encode(FrameType.CLIENT_PUSH, reply, count=1),
        FrameType.FORWARD_REQUEST: wire.encode(
            FrameType.FORWARD_REQUEST, put, sender=MEMBER_ID, request_id=7, count=1
        ),
        FrameType.FORWARD_REPLY: wire.encode(
            FrameType.FORWARD_REPLY, reply, sender=MEMBER_ID, request_id=7, count=1
        ),
    }
    # What follows these headers are records of TLS, which are others each time.
    for sealed in (FrameType.TLS_HANDSHAKE, FrameType.TLS_FRAME):
        made[sealed] = wire.bare_header(sealed, 0)
    for message in ONE_OF_EACH:
        frame = encode_message(MEMBER_ID, message)
        made[FrameType(frame[5])] = frame
    return {frame_type.name.lower(): frame for frame_type, frame in sorted(made.items())}


def batches() -> list[Batch]:
    """A log in which each command and each kind of batch is."""
    compare = Compare(Target.VALUE, "a", Relation.EQUAL, b"1")
    transaction = Transact([compare], [GetKey("a"), PutKey("b", b"\0" * 200)], [DeleteKey("a")])
    first: list[Command] = [
        OpenSession(60_000),
        Put("a", b"1"),
        InSession(3, 1, 1, Put("c", b"\xff", 0)),
        GrantLease(5_000),
        PutLeased("leased", b"2", -1, 6),
        KeepLease(6),
        transaction,
        Once(_REQUEST_ID, _TIME_MS + 60_000, SendMessage("hello", "node-01")),
        SetSetting("messages_keep", 1_000),
        RaiseVersion(1),
        AddExport(Export("fw/", "deny", "lpm_trie", "ipv4_prefix", "u32", 10)),
        AddExport(Export("ports/", "ports", "hash", "u32", "bytes[4]", 9, "bpf", True)),
        RemoveExport("ports"),
    ]
    second: list[Command] = [
        KeepSession(3),
        Delete("c"),
        GrantLease(9_000),
        RevokeLease(21),
        ExpireLease(6, 8),
        CloseSession(3),
    ]
    return [
        encode(BatchKind.CONFIGURATION, 1, 1, 1, msgspec.msgpack.encode(CONFIGURATION)),
        encode(BatchKind.NOOP, 2, 1, 1, b""),
        _commands(3, first),
        encode(BatchKind.NOOP, 16, 2, 1, b""),
        _commands(17, [Put("fw/10.0.0.0/8", b"4"), SendMessage("before the snapshot", "node-01")]),
        _commands(19, second),
    ]


def _commands(first_index: int, commands: list[Command]) -> Batch:
    payload = join_commands(_TIME_MS, len(commands), [encode_commands(commands)])
    return encode(BatchKind.COMMANDS, first_index, 2, len(commands), payload)


def machine_at(index: int) -> Machine:
    """The state after the entry `index`."""
    machine = Machine()
    for batch in batches():
        if batch.last_index <= index:
            machine.apply(batch)
    return machine


def states() -> str:
    """What the state after each batch comes to, as members compare it."""
    machine, lines = Machine(), []
    for batch in batches():
        machine.apply(batch)
        lines.append(f"{batch.last_index} {digest_of(machine.begin_snapshot()):016x}\n")
    return "".join(lines)


def write_data_dir(data_dir: Path) -> None:
    """A data directory as an agent would have left it, without what is different each time."""
    data_dir.mkdir(parents=True)
    replace_file(data_dir / VOTE_NAME, encode_vote(Vote()))
    replace_file(data_dir / IDENTITY_NAME, encode_identity(MEMBER_ID))
    store = Store.open(data_dir, segment_bytes=SEGMENT_BYTES)
    try:
        driver = Driver(store)
        store.found_cluster(CLUSTER_ID)
        store.save_promise(1)
        store.save_word(150_000)
        for batch in batches():
            driver.append(batch)
        driver.save_vote(1, 2, MEMBER_ID)
        machine = machine_at(SNAPSHOT_INDEX)
        file = store.snapshots.create(SNAPSHOT_INDEX, 2, 1, CONFIGURATION)
        view = machine.begin_snapshot()
        while (portion := view.next_items()) is not None:
            file.write_blocks(encode_block(portion))
        view.close()
        file.finish()
    finally:
        store.close()
    (data_dir / "lock").unlink()


def contents(directory: Path) -> dict[str, bytes]:
    """Every file below a directory."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def main() -> int:
    shutil.rmtree(VERSION_1, ignore_errors=True)
    (VERSION_1 / FRAMES).mkdir(parents=True)
    for name, frame in frames().items():
        (VERSION_1 / FRAMES / f"{name}.bin").write_bytes(frame)
    write_data_dir(VERSION_1 / DATA)
    (VERSION_1 / STATES).write_text(states())
    return 0


if __name__ == "__main__":
    sys.exit(main())
