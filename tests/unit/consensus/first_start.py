"""A harness for the first start: fresh servers that know each other's names only."""

from __future__ import annotations

from collections.abc import Iterable

from raft_agent.consensus.types import (
    BootstrapAnswer,
    BootstrapAsk,
    BootstrapInstall,
    FoundCluster,
    Role,
)
from tests.unit.consensus.harness import Cluster, Packet
from tests.unit.consensus.server import Server, of


def fresh_cluster(size: int = 3, *, listed: dict[int, tuple[str, ...]] | None = None) -> Cluster:
    """Nobody is connected yet. `listed`: who lists other names than all the others'.

    Ids and names run against each other, so that a smallest id is never taken for a smallest name:
    of three, 3 is "n1", 2 is "n2" and 1 is "n3".
    """
    cluster = Cluster(size)
    names = tuple(f"n{number}" for number in range(1, size + 1))
    for member_id in range(1, size + 1):
        cluster.servers[member_id] = Server(
            member_id,
            log=[],
            name=names[size - member_id],
            peer_names=(listed or {}).get(member_id, names),
        )
    return cluster


FOUNDER, SECOND, THIRD = 3, 2, 1


def roles(cluster: Cluster) -> list[Role]:
    return [cluster.node(member_id).role for member_id in sorted(cluster.servers)]


def cluster_ids(cluster: Cluster) -> set[str]:
    """The clusters that anybody belongs to."""
    return {
        configuration.cluster_id
        for server in cluster.servers.values()
        if (configuration := server.node.configuration) is not None
    }


def founders(cluster: Cluster) -> list[int]:
    return [
        member_id
        for member_id, server in cluster.servers.items()
        if any(note.startswith("cluster_founded") for note in kinds(server))
    ]


def kinds(server: Server) -> Iterable[str]:
    return [getattr(effect, "kind", "") for effect in server.history]


def is_ask(packet: Packet) -> bool:
    return isinstance(packet.message, BootstrapAsk) and bool(packet.message.names)


def is_answer(packet: Packet) -> bool:
    return isinstance(packet.message, BootstrapAnswer)


def is_install(packet: Packet) -> bool:
    return isinstance(packet.message, BootstrapInstall)


def found_effects(server: Server) -> list[FoundCluster]:
    return of(FoundCluster, server.history)


def lose_disk(cluster: Cluster, old_id: int, new_id: int) -> Server:
    """The server comes back with an empty disk and so with another id; nobody is connected to the
    new one yet, and what the old one sent may still be on the wire.
    """
    old = cluster.servers.pop(old_id)
    cluster.servers[new_id] = Server(
        new_id, log=[], name=old.name, peer_names=old.peer_names, now_us=cluster.now_us
    )
    cluster.wire = [packet for packet in cluster.wire if packet.to != old_id]
    cluster.down.add(old_id)
    return cluster.servers[new_id]
