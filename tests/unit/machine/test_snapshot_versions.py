"""Snapshots that exist are read for ever, and say in which version they are written."""

from __future__ import annotations

import pytest

from raft_agent.machine.commands import (
    Command,
    Delete,
    GrantLease,
    InSession,
    KeepLease,
    Once,
    OpenSession,
    Put,
    PutLeased,
    RevokeLease,
    SendMessage,
    Transact,
)
from raft_agent.machine.machine import Machine
from raft_agent.machine.snapshot import SnapshotError, encode_block
from raft_agent.machine.transactions import Compare, DeleteKey, GetKey, Relation, Target
from tests.unit.machine.batches import apply

VERSION_1 = """
92009188ac6c6173745f6170706c69656406b16c6173745f6170706c6965645f7465726d01a87265766973696f6e03
a774696d655f6d73cd07d0b06d657373616765735f64726f7070656400b2636f6d7061637465645f7265766973696f6e
00a873657474696e677382ad6d657373616765735f6b65657003ac686973746f72795f6b65657002a776657273696f6e
01

92019195a161c40132020201

9202919406cd07d0a16ea26869

92039394a162c40131010294a161c40132020394a162c00304

9204919401cd1388cd1b5802

9205919501050501920200

92069195cd0bb80601c4100000000000000000000000000000000093010300

9207980001010301010100
"""
VERSION_2 = """
92009188ac6c6173745f6170706c6965640ab16c6173745f6170706c6965645f7465726d01a87265766973696f6e05
a774696d655f6d73cd09c4b06d657373616765735f64726f7070656400b2636f6d7061637465645f7265766973696f6e
00a873657474696e677382ad6d657373616765735f6b65657003ac686973746f72795f6b65657002a776657273696f6e
02

92019195a162c401ff020201

92039594a161c40132010395a162c401ff02040294a161c0030595a163c40004080695a163c0050a06

9204919401cd1388cd1b5802

92059195010505019405c303929300c29196a162c401ff020201029301c290

92069295cd0bb80601c41000000000000000000000000000000000930306cd232895cd0bb80901c4100101010101010101
0101010101010101920409

9208919402cd138807cd07d0

9209919202a162

92079a00010005010102000101
"""


def blocks_in(text: str) -> list[bytes]:
    return [bytes.fromhex(block) for block in text.strip().split("\n\n")]


def machine_of_version_1() -> Machine:
    machine = Machine(messages_keep=3, history_keep=2)
    apply(machine, OpenSession(5000), Put("b", b"1"), Put("a", b"2"), Delete("b"))
    condition_fails = InSession(1, 5, 2, Put("c", b"\xff", 9))
    apply(machine, condition_fails, Once(bytes(16), 3000, SendMessage("hi", "n")), time_ms=2000)
    return machine


def machine_of_version_2() -> Machine:
    machine = Machine(messages_keep=3, history_keep=2)
    apply(machine, OpenSession(5000), GrantLease(5000), Put("a", b"2"))
    apply(machine, PutLeased("b", b"\xff", -1, 2))
    compare = Compare(Target.VALUE, "a", Relation.EQUAL, b"2")
    transaction = Transact([compare], [GetKey("b"), DeleteKey("a")], [])
    granted = Once(bytes(16), 3000, GrantLease(9000))
    apply(machine, InSession(1, 5, 2, transaction), granted, KeepLease(2), time_ms=2000)
    gone = Once(bytes([1] * 16), 3000, RevokeLease(9))
    apply(machine, PutLeased("c", b"", -1, 6), gone, RevokeLease(6), time_ms=2500)
    return machine


def snapshot_of(machine: Machine) -> list[bytes]:
    view = machine.begin_snapshot()
    blocks = []
    while (portion := view.next_items()) is not None:
        blocks.append(encode_block(portion))
    view.close()
    return blocks


@pytest.mark.parametrize(
    ("make", "golden"),
    [(machine_of_version_1, VERSION_1), (machine_of_version_2, VERSION_2)],
    ids=["version 1", "version 2"],
)
def test_a_snapshot_is_written_and_read_as_it_always_was(make: object, golden: str) -> None:
    assert callable(make)
    machine = make()
    assert snapshot_of(machine) == blocks_in(golden)
    restored = Machine.restore(blocks_in(golden))
    assert restored.digest() == machine.digest()
    further: list[Command] = [
        KeepLease(2),
        Once(bytes(16), 3000, GrantLease(9000)),
        InSession(1, 5, 2, RevokeLease(2)),
        RevokeLease(2),
    ]
    assert apply(restored, *further, time_ms=2600) == apply(machine, *further, time_ms=2600)
    assert restored.digest() == machine.digest()


def test_the_first_lease_or_transaction_makes_it_a_snapshot_of_version_2() -> None:
    machine = machine_of_version_1()
    assert machine.begin_snapshot().header.version == 1
    apply(machine, Transact([], [GetKey("a")], []))
    assert machine.begin_snapshot().header.version == 2
    assert Machine.restore(snapshot_of(machine)).begin_snapshot().header.version == 2


def test_sections_that_its_version_does_not_have_are_refused() -> None:
    *blocks, end = blocks_in(VERSION_1)
    lease = blocks_in(VERSION_2)[6]
    with pytest.raises(SnapshotError, match="too many"):
        Machine.restore([*blocks, lease, end])


@pytest.mark.parametrize("left_out", [1, 6], ids=["the key", "the lease"])
def test_a_lease_of_what_is_not_there_is_refused(left_out: int) -> None:
    blocks = blocks_in(VERSION_2)
    del blocks[left_out]
    with pytest.raises(SnapshotError, match="binds the key"):
        Machine.restore(blocks)
