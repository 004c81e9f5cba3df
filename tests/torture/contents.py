"""What every node holds in the end, read at each by itself: not what the product says of itself."""

from __future__ import annotations

import time
from collections.abc import Sequence

from raft_agent.api import protocol
from raft_agent.api.protocol import Consistency
from tests.e2e.agents import UNREACHABLE, Agent
from tests.torture.checks.truth import end_of
from tests.torture.history import Record
from tests.torture.world import World

_EQUAL_S = 120.0
_LOOK_S = 0.2
_PAGE = 5000
_SHOWN = 5
# Of leases and of locks: they end by themselves.
_PASSING = ("e/", "lock/")

Contents = dict[str, tuple[bytes, int, int]]


def problems(world: World, records: Sequence[Record]) -> list[str]:
    """What differs between the members' stores at one revision, or from what clients read there
    last, if they got so far."""
    end = end_of(records)
    wanted = None if end is None else {key: (value, r, v) for key, value, r, v in end.out}
    deadline = time.monotonic() + _EQUAL_S
    while True:
        found = {node.name: read(node.agent) for node in world.nodes if node.in_use}
        told = differences(found, wanted)
        if not told or time.monotonic() > deadline:
            return told
        time.sleep(_LOOK_S)


def differences(
    found: dict[str, tuple[int, Contents] | None], wanted: dict[str, tuple[str, int, int]] | None
) -> list[str]:
    """`found`: of each member its revision and its keys, None when it does not say; `wanted`: of
    each key its value, revision and version as clients read it last, None when they did not."""
    revisions = {name: None if read is None else read[0] for name, read in found.items()}
    if None in revisions.values() or len(set(revisions.values())) > 1:
        return [f"the members' stores do not come to one revision: {revisions}"]
    stores = {name: read[1] for name, read in found.items() if read is not None}
    first_name, first = next(iter(stores.items()))
    complaints = [
        f"{name} and {first_name} differ in {_different(store, first)}"
        for name, store in stores.items()
        if store != first
    ]
    if wanted is not None:
        held = {key: (value.decode(errors="replace"), r, v) for key, (value, r, v) in first.items()}
        lasting = {key: item for key, item in wanted.items() if not key.startswith(_PASSING)}
        kept = {key: item for key, item in held.items() if not key.startswith(_PASSING)}
        if different := _different(kept, lasting):
            complaints.append(f"{first_name} differs from what was read last in {different}")
    return complaints


def _different(one: dict[str, object], other: dict[str, object]) -> list[str]:
    keys = one.keys() | other.keys()
    return sorted(key for key in keys if one.get(key) != other.get(key))[:_SHOWN]


def read(agent: Agent) -> tuple[int, Contents] | None:
    """(revision, all keys) of one agent's own store; None when it does not say, or changes."""
    contents: Contents = {}
    after, revision = "", 0
    while True:
        try:
            page = agent.ask(protocol.List(1, "", _PAGE, after, Consistency.STALE), timeout_s=10)
        except UNREACHABLE:
            return None
        assert isinstance(page, protocol.ListResult)
        if revision and page.revision != revision:
            return None
        revision = page.revision
        contents.update({k.key: (k.value, k.revision, k.version) for k in page.keys})
        if not page.more:
            return revision, contents
        after = page.keys[-1].key
