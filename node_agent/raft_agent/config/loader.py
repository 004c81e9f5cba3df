"""From raw values to a checked `Config`, or everything that is wrong at once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from raft_agent.config import values
from raft_agent.config.exports import check_exports, check_freshness
from raft_agent.config.model import Cluster, Config, Ebpf, Peer, Server, Storage, Timing, Tls
from raft_agent.config.schema import FIELDS, PEER_FIELDS, Field
from raft_agent.config.sources import Sources, Value
from raft_agent.config.tls import check_tls

_ONLY_WAITS = (
    "cluster.join is set without cluster.token or [tls]: this node waits until somebody runs "
    "raftctl join"
)


def load(
    path: Path,
    *,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    with_certificates: bool = False,
) -> Config:
    """Read the file at `path`, then the environment, then `overrides` ("section.key=value").
    `with_certificates`: look into the files of [tls], too.

    Raises ConfigError with every problem that was found.
    """
    sources = Sources(path)
    sources.read_file()
    sources.read_environment(environ)
    sources.read_overrides(overrides)
    checked = {
        section: _check_section(sources, section, fields) for section, fields in FIELDS.items()
    }
    peers = _check_peers(sources)
    _check_timing(sources, checked["timing"])
    _check_start(sources, checked["cluster"])
    check_tls(sources, checked["tls"], checked["server"], with_files=with_certificates)
    exports = check_exports(sources, _check_value)
    check_freshness(sources, checked["ebpf"], checked["timing"])
    peers = _without_own_entry(sources, checked["server"], peers)
    sources.raise_problems()
    config = Config(
        server=Server(**checked["server"]),
        timing=Timing(**checked["timing"]),
        storage=Storage(**checked["storage"]),
        ebpf=Ebpf(**checked["ebpf"]),
        cluster=Cluster(**checked["cluster"]),
        tls=Tls(**checked["tls"]),
        peers=tuple(sorted(peers, key=lambda peer: peer.id)),
        exports=exports,
        path=str(path),
        overrides=tuple(overrides),
    )
    return _with_notes(config, sources.notes)


def _check_value(sources: Sources, label: str, field: Field, given: Value) -> Any:
    """The value to use; None when it is wrong, which is noted."""
    if not field.accepts(given.value):
        shown = "something else" if field.key.secret else _as_written(given.value)
        text = f"{label} must be {field.kind_name}, but is {shown}"
        sources.problem(given, text)
        return None
    value = tuple(given.value) if field.kind is tuple else given.value
    if field.key.check is None:
        return value
    try:
        return field.key.check(value)
    except ValueError as error:
        sources.problem(given, f"{label} {error}")
        return None


def _as_written(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else f"{value}"


def _check_section(sources: Sources, section: str, fields: Mapping[str, Field]) -> dict[str, Any]:
    """The values that were given and are right; the structs fill in the rest."""
    given = sources.sections[section]
    checked = {}
    for name, field in fields.items():
        if name in given:
            value = _check_value(sources, f"{section}.{name}", field, given[name])
            if value is not None:
                checked[name] = value
        elif field.required:
            example = {"node_id": "node-01", "data_dir": "/var/lib/raft"}.get(name, "…")
            text = f'{section}.{name} is missing: add {name} = "{example}" to [{section}]'
            sources.missing((section,), text)
    return checked


def _check_peers(sources: Sources) -> list[Peer]:
    peers: list[Peer] = []
    by_name: dict[str, Peer] = {}
    by_address: dict[str, Peer] = {}
    for given in sources.peers:
        checked = {
            name: _check_value(sources, f"the peer's {name}", PEER_FIELDS[name], value)
            for name, value in given.items()
        }
        if len(checked) < len(PEER_FIELDS) or None in checked.values():
            continue
        peer = Peer(**checked)
        if peer.id in by_name:
            text = f'two peers have the id "{peer.id}"; every member needs a name of its own'
            sources.problem(given["id"], text)
        elif peer.address in by_address:
            other = by_address[peer.address].id
            text = f'the peers "{other}" and "{peer.id}" have the same address {peer.address}'
            sources.problem(given["address"], text)
        else:
            peers.append(peer)
        by_name.setdefault(peer.id, peer)
        by_address.setdefault(peer.address, peer)
    return peers


def _check_timing(sources: Sources, checked: dict[str, int]) -> None:
    given = sources.sections["timing"]
    if any(name not in checked for name in given):
        return
    timing = Timing(**checked)

    def say(first: str, second: str, text: str) -> None:
        culprit = given.get(first) or given.get(second)
        assert culprit is not None  # noqa: S101  # the defaults are in order
        sources.problem(culprit, text)

    def shown(name: str) -> str:
        default = "" if name in given else ", the default"
        return f"timing.{name} ({getattr(timing, name)}{default})"

    heartbeat, low, high = (
        "heartbeat_interval_ms",
        "election_timeout_min_ms",
        "election_timeout_max_ms",
    )
    if timing.election_timeout_min_ms <= timing.heartbeat_interval_ms:
        text = (
            f"{shown(low)} must be greater than {shown(heartbeat)}, else followers stand for "
            f"election under a living leader; about {3 * timing.heartbeat_interval_ms} is usual"
        )
        say(low, heartbeat, text)
    if timing.election_timeout_max_ms < timing.election_timeout_min_ms:
        text = (
            f"{shown(high)} must not be less than {shown(low)}; about "
            f"{2 * timing.election_timeout_min_ms} is usual"
        )
        say(high, low, text)


def _check_start(sources: Sources, cluster: dict[str, Any]) -> None:
    """Ways to start exclude each other: each would make or look for another cluster."""
    given = sources.sections["cluster"]
    if cluster.get("bootstrap") and sources.peers:
        text = (
            "cluster.bootstrap founds a cluster of this one member, but there are peers too: "
            "remove one of the two"
        )
        sources.problem(given["bootstrap"], text)
    if cluster.get("bootstrap") and cluster.get("join"):
        text = (
            "cluster.bootstrap founds a new cluster and cluster.join asks to be added to one: "
            "remove one of the two"
        )
        sources.problem(given["bootstrap"], text)
    if cluster.get("join") and sources.peers:
        text = (
            "cluster.join asks to be added to a cluster and [[peers]] is for the first start of a "
            "new one: remove one of the two"
        )
        sources.problem(given["join"], text)


def _without_own_entry(sources: Sources, server: dict[str, Any], peers: list[Peer]) -> list[Peer]:
    """One list of all members can serve in the files of all: the own entry is taken out.

    It must not contradict the rest of the file. The usual cause is a file copied from another
    machine, and two nodes of one name would be worse than none.
    """
    name = server.get("node_id")
    own = server.get("advertise_addr") or server.get("listen_addr")
    if own is not None and values.is_wildcard(own):
        own = None
    others = []
    for peer in peers:
        said = next(item for item in sources.peers if "id" in item and item["id"].value == peer.id)
        if peer.id != name:
            others.append(peer)
            if own is not None and peer.address == own:
                text = f'the peer "{peer.id}" has this node\'s own address {own}'
                sources.problem(said["address"], text)
        elif own is None:
            server["advertise_addr"] = peer.address
        elif peer.address != own:
            text = (
                f'the peer "{peer.id}" has this node\'s own name, but the address {peer.address} '
                f"instead of {own}: correct server.node_id, or this address"
            )
            sources.problem(said["address"], text)
    if peers and not others and len(peers) == len(sources.peers):
        text = (
            "this node is the only peer; a cluster of one member is founded with bootstrap = true "
            "in [cluster] and no [[peers]]"
        )
        sources.missing(("peers",), text)
    return others


def _with_notes(config: Config, notes: list[str]) -> Config:
    notes = list(notes)
    if config.cluster.join and config.cluster.token is None and config.tls.cert is None:
        notes.append(_ONLY_WAITS)
    timing = config.timing
    if timing.election_timeout_min_ms == timing.election_timeout_max_ms:
        notes.append(
            "timing.election_timeout_min_ms and _max_ms are equal: without chance between them "
            "members tend to stand for election at the same moment and split the votes"
        )
    if timing.election_timeout_min_ms < 2 * timing.heartbeat_interval_ms:
        notes.append(
            "timing.election_timeout_min_ms is less than two heartbeat intervals: one lost "
            "heartbeat is enough for an election"
        )
    return msgspec.structs.replace(config, notes=tuple(notes))
