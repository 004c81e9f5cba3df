"""What the kernel part is told of members, and what it answers where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from raft_agent.api import protocol
from raft_agent.api.host import Failure
from raft_agent.config import load
from raft_agent.consensus.types import Configuration, Member
from raft_agent.runtime.kernel_side import KernelSide

OWN = 1


class Engine:
    """As much of one as is asked for."""

    last_stamp = None

    class node:  # noqa: N801
        class state:  # noqa: N801
            member_id = OWN


class Transport:
    def flows(self) -> list[object]:
        return []


def kernel_side(tmp_path: Path, more: str = "") -> KernelSide:
    file = tmp_path / "raft.toml"
    file.write_text(
        f'[server]\nnode_id = "node-01"\ndata_dir = "{tmp_path}"\n{more}\n'
        '[[peers]]\nid = "node-02"\naddress = "10.0.0.2:5555"\n'
    )
    parts = cast("tuple[Any, Any, Any]", (Transport(), Engine(), None))
    return KernelSide(load(file, environ={}), *parts, lambda _kind, **_facts: None)


def members(*addresses: str) -> Configuration:
    found = tuple(Member(n, f"node-{n:02}", address) for n, address in enumerate(addresses, 1))
    return Configuration("c0ffee", found, tuple(member.id for member in found))


def test_before_there_is_a_cluster_the_configured_peers_are_followed(tmp_path: Path) -> None:
    assert kernel_side(tmp_path).peer_addresses() == [("10.0.0.2", 5555)]


def test_then_it_follows_the_members_and_leaves_itself_out(tmp_path: Path) -> None:
    side = kernel_side(tmp_path)
    side.follow(members("10.0.0.1:5555", "10.0.0.3:6000", "[fd00::4]:5555", "host.example:7000"))
    assert side.peer_addresses() == [
        ("10.0.0.3", 6000),
        ("fd00::4", 5555),
        ("host.example", 7000),
    ]


def test_where_it_is_off_it_says_so_and_does_nothing(tmp_path: Path) -> None:
    side = kernel_side(tmp_path)
    side.start()
    assert side.status() == protocol.EbpfStatus("off")
    assert side.report() == protocol.KernelResult(protocol.EbpfStatus("off"), [], [])
    side.handled(2, object())
    refused = side.set_fault(protocol.FaultSet(1, "node-02", 1000, 1000))
    assert isinstance(refused, Failure)
    assert refused.hint == "Start it with raft-agent --enable-fault-injection"
    assert isinstance(side.heal_faults(protocol.FaultHeal(1)), Failure)
