"""Who this node is, by its data directory, where others are to dial it, and whom it dials."""

from __future__ import annotations

import secrets

from raft_agent.config import Config
from raft_agent.config.values import is_served, split_address
from raft_agent.consensus.node import Node
from raft_agent.consensus.types import Configuration, Member, Settings
from raft_agent.runtime.engine import now_us
from raft_agent.storage.errors import StorageError
from raft_agent.storage.store import Recovered
from raft_agent.transport.transport import PeerTarget


def check_owner(config: Config, recovered: Recovered) -> None:
    """Directories that were swapped, copied or renamed would vote under another's id. Raises
    StorageError."""
    own, name = _own_entry(recovered), config.server.node_id
    if own is not None and own.name != name:
        raise StorageError(
            f"{config.server.data_dir}: holds the data of the member {own.name!r} (id "
            f"{recovered.member_id:016x}), but server.node_id is {name!r}. Put the right directory "
            "in its place, or correct server.node_id or server.data_dir"
        )


def own_address(config: Config, recovered: Recovered) -> str:
    """What others are to dial. The configuration's word stands as long as this node listens there:
    people may have joined it by a name, where it would say a number itself. Raises ConfigError when
    there is none.
    """
    own = _own_entry(recovered)
    if own is not None and config.server.advertise_addr is None:
        listen_addr = config.server.listen_addr
        host, port = split_address(own.address)
        if port == split_address(listen_addr)[1] and is_served(host, listen_addr):
            return own.address
    return config.advertise_address()


def make_node(config: Config, recovered: Recovered, address: str) -> Node:
    """The core, as it was when the data directory was left. `address`: where others dial it."""
    timing, name = config.timing, config.server.node_id
    # Who had a log that was put aside founds nothing, whatever the configuration file says.
    founds = not recovered.is_to_be_joined
    peers = tuple(peer.id for peer in config.peers) if founds else ()
    return Node(
        member_id=recovered.member_id,
        name=name,
        address=address,
        peer_names=tuple(sorted((*peers, name))) if peers else (),
        vote=recovered.vote,
        log=recovered.log,
        settings=Settings(
            heartbeat_interval_us=timing.heartbeat_interval_ms * 1000,
            election_timeout_min_us=timing.election_timeout_min_ms * 1000,
            election_timeout_max_us=timing.election_timeout_max_ms * 1000,
            disk_stall_us=timing.disk_stall_or_default_ms * 1000,
            clock_drift_ppm=timing.clock_drift_ppm,
            audit_interval_us=timing.state_check_interval_ms * 1000,
        ),
        snapshot=recovered.snapshot,
        word_us=recovered.word_us,
        seed=secrets.randbits(64),
        now_us=now_us(),
        bootstrap=config.cluster.bootstrap and founds,
    )


def _own_entry(recovered: Recovered) -> Member | None:
    configurations = recovered.log.configurations
    members = configurations[-1][1].members if configurations else ()
    return next((m for m in members if m.id == recovered.member_id), None)


def dial_targets(
    config: Config, configuration: Configuration | None, own_id: int
) -> list[PeerTarget]:
    """Whom this node dials: the other members, or before there are any, its configured peers."""
    if configuration is None:
        return [PeerTarget(peer.id, peer.address, 0) for peer in config.peers]
    return [
        PeerTarget(member.name, member.address, member.id)
        for member in configuration.members
        if member.id != own_id
    ]
