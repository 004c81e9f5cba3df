"""What a node says when it starts and does not simply go on: what it waits for, or came from."""

from __future__ import annotations

from collections.abc import Callable

from raft_agent.config import Config
from raft_agent.consensus.generations import generation_of
from raft_agent.consensus.node import Node
from raft_agent.consensus.types import Role
from raft_agent.runtime.views import Views
from raft_agent.storage.store import Recovered

Tell = Callable[..., None]


def say_what_is_awaited(
    config: Config, recovered: Recovered, node: Node, views: Views, tell: Tell, *, asks: bool
) -> None:
    """Of a node that belongs to no cluster yet. `asks`: it asks by itself to be added."""
    founds = not recovered.is_to_be_joined
    if node.role is not Role.FRESH or (config.cluster.bootstrap and founds):
        return
    name = config.server.node_id
    peers = [peer.id for peer in config.peers if founds]
    if peers:
        tell("first_start", founder=min(*peers, name), others=", ".join(peers))
        return
    if asks:
        asked = ", ".join(config.cluster.join)
        views.note = f"asks {asked} to be added; what they answer: raftctl events"
        return
    reason = f"at a member run: raftctl --node MEMBER join {name} {config.advertise_address()}"
    views.note = f"waiting to be joined: {reason}"
    tell("waits_to_be_joined", reason=reason)


def say_what_was_restored(recovered: Recovered, tell: Tell) -> None:
    """Once, when the agent starts on what was made from a backup and has no log yet."""
    snapshot = recovered.snapshot
    if snapshot is None or recovered.log.last_index > snapshot.index:
        return
    generation = generation_of(snapshot.configuration)
    if generation.floor and not generation.id:
        tell("restored", index=snapshot.index, cluster_id=snapshot.configuration.cluster_id)
