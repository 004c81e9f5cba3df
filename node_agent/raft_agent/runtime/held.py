"""What a data directory holds, in memory: what takes long of a start, and needs no event loop."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from raft_agent.config import Config
from raft_agent.machine.machine import Machine
from raft_agent.runtime.identity import check_owner
from raft_agent.runtime.restoring import restore
from raft_agent.storage.store import Store


class Held(NamedTuple):
    """An open data directory, and the state machine as its newest snapshot has it."""

    store: Store
    machine: Machine


def open_held(config: Config, kind: type[Machine] = Machine) -> Held:
    """Open the data directory of the member that `config` names. `kind`: in tests another one, of a
    program of a later version.

    Blocks: for minutes where much is read from a slow disk. May run in any thread. Raises
    StorageError, and leaves the directory closed then.
    """
    store = Store.open(Path(config.server.data_dir), versions=kind.versions)
    try:
        recovered = store.recovered
        check_owner(config, recovered)
        if recovered.snapshot is None:
            return Held(store, kind())
        return Held(store, restore(store.snapshots, recovered.snapshot, kind))
    except BaseException:
        store.close()
        raise
