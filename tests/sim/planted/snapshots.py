"""Faults in snapshots: taking, sending, installing, and starting from them (§7 of the paper)."""

from __future__ import annotations

from tests.sim.planted.fault import Edit, Fault
from tests.sim.planted.focus import snapshots

_SNAPSHOTS = "raft_agent.consensus.snapshots"
_MACHINE = "raft_agent.machine.machine"
_FORMAT = "raft_agent.storage.snapshot_format"
_PLAN = "raft_agent.storage.plan"
_DISK = "tests.sim.disk"

FAULTS = (
    Fault(
        "snapshot_installed_onto_the_log",
        "a follower takes a snapshot over and keeps its log in memory",
        (Edit(_SNAPSHOTS, "        state.log.reset(snapshot.index, snapshot.term)\n", ""),),
        ("the core's log is not what it had written", "broken invariant", "Error"),
        focus=snapshots,
        seed=1,
    ),
    Fault(
        "log_kept_behind_a_snapshot",
        "at a start the log stays, whether it leads up to the snapshot or not",
        (Edit(_PLAN, "        if not self._holds(newest):\n", "        if not plan.segments:\n"),),
        (
            "begins behind what is not committed",
            "committed entries differ",
            "broken invariant",
            "Error",
        ),
        focus=snapshots,
        seed=6,
    ),
    Fault(
        "snapshot_acknowledged_before_it_is_durable",
        "a follower says that it has a snapshot as soon as it begins to install it",
        (
            Edit(
                _SNAPSHOTS,
                "        incoming.is_installing = state.installing = True\n",
                "        incoming.is_installing = state.installing = True\n"
                "        self._answer(incoming, done=True)\n",
            ),
        ),
        (
            "a snapshot is said to be there before it was on disk",
            "a match index is beyond what is on the peer's disk",
        ),
        focus=snapshots,
        seed=1,
    ),
    Fault(
        "snapshot_behind_another_log",
        "a follower takes a snapshot for one that it has when its log is long enough",
        (
            Edit(
                _SNAPSHOTS,
                "or state.log.holds(index, index_term)",
                "or index <= state.log.last_index",
            ),
        ),
        ("committed entries differ", "a match index is beyond", "state machine safety"),
        focus=snapshots,
        seed=30,
    ),
    Fault(
        "compacted_beyond_the_older_snapshot",
        "the log loses all that the newest snapshot stands for",
        (
            Edit(
                _SNAPSHOTS,
                "upto_index = min(wanted, state.persisted_index)",
                "upto_index = min(event.snapshot.index, state.persisted_index)",
            ),
        ),
        ("the log is compacted beyond the older snapshot",),
        focus=snapshots,
    ),
    Fault(
        "configuration_of_the_snapshot_forgotten",
        "who takes a snapshot over goes by the members it knew before",
        (
            Edit(
                _SNAPSHOTS,
                "        state.membership.reset("
                "snapshot.configuration_index, snapshot.configuration)\n",
                "",
            ),
        ),
        ("the configuration in force is not the log's latest",),
        seed=1,
    ),
    Fault(
        "snapshot_of_a_moving_state",
        "a snapshot holds some keys as they were later",
        (
            Edit(
                _MACHINE,
                "        if self._views:\n            self._remember(key, old)\n"
                "        revision = self.revision + 1\n",
                "        revision = self.revision + 1\n",
            ),
        ),
        ("two nodes have other states", "state machine safety", "Error"),
        focus=snapshots,
        seed=1,
    ),
    Fault(
        "damaged_snapshot_taken",
        "a start takes a snapshot whose blocks do not match their checksums",
        (Edit(_FORMAT, "if crc != _block_crc(number, payload):", "if False:"),),
        ("two nodes have other states", "state machine safety", "Error"),
        focus=snapshots,
    ),
    Fault(
        "log_forgotten_before_the_snapshot_is_there",
        "the log is forgotten while the snapshot is still being written",
        (
            Edit(
                _DISK,
                "self._publishing += [stored] if stored is not None and is_newer else []",
                "self._publishing += [stored] if stored is not None and is_newer else []\n"
                "                if stored is not None and is_newer:\n"
                "                    self._forget_log(stored.meta)",
            ),
        ),
        ("refuses to start", "the core's log is not what it had written", "broken invariant"),
        focus=snapshots,
        seed=6,
    ),
)
