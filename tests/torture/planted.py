"""Faults in the product itself: `python -m tests.torture.planted` sees how soon each is found.

The agents run from a copy of the source in which some text is replaced, as in tests/sim/planted.
Each fault is looked for with the strikes that it needs, in runs of two minutes, seed after seed.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import raft_agent
from tests.sim.planted.catalogue import FAULTS
from tests.sim.planted.fault import Edit, StaleFaultError
from tests.torture.alarms import LOGS, NOBODY_LED
from tests.torture.checks import CHECKS
from tests.torture.ending import end_in_order
from tests.torture.run import MAPS, torture
from tests.torture.world import Options, missing

LIMIT_MINUTES = 10.0
_RUN_MINUTES = 2.0
_ONLY_BY_FAULTS = frozenset({*CHECKS, MAPS, LOGS})
# Among what else is complained of: agents that refuse to start or end, and states and stores that
# are not equal.
_IS_A_FIND = re.compile(
    r"ended by itself|its state differs|majority of the members has equal states|'differs'|"
    r"differ in \[|differs from what was read last"
)

_QUICK = Options(0)
# Disks as slow as small boards have them: so much is on its way when the power fails.
_SLOW = Options(0, fsync_ms=40)
# A leader that is cut off takes the longest timeout to give up, and others elect after theirs: two
# lead for most of a second, which clients of both can use.
_RIVALS = Options(
    0,
    timing="heartbeat_interval_ms = 50\nelection_timeout_min_ms = 150\n"
    "election_timeout_max_ms = 1500",
)
# Who is cut off for longer than a second is dialled anew, and the first question on a new
# connection is about the newest entry.
_BRIEF = Options(0, timing="")


@dataclass(frozen=True)
class Planted:
    """`wrong` says what the program does; `weights` are the strikes with which it is looked for, in
    a cluster with these `options`."""

    name: str
    wrong: str
    edits: tuple[Edit, ...]
    weights: Mapping[str, int]
    options: Options = _QUICK


def _known(*names: str) -> tuple[Edit, ...]:
    """The edits of the simulator's planted faults."""
    found = {fault.name: fault for fault in FAULTS}
    return tuple(edit for name in names for edit in found[name].edits)


_POWER = {"power": 5, "election_power": 2, "kill": 1}

PLANTED = (
    Planted(
        "acknowledged_before_fsync",
        "leader and followers count what is still being written",
        _known("acknowledged_before_fsync", "leader_counts_itself_before_fsync"),
        _POWER,
        _SLOW,
    ),
    Planted(
        "fsync_left_out",
        "the log is written and never synced",
        (Edit("raft_agent.storage.log", "        platform.sync_data(self._fd)\n", ""),),
        _POWER,
    ),
    Planted(
        "vote_not_synced",
        "term and vote are written and never synced",
        (
            Edit(
                "raft_agent.storage.writer",
                "replace_file(self._path, encode_vote(vote))",
                'new = self._path.with_name("vote.tmp")\n'
                "                    new.write_bytes(encode_vote(vote))\n"
                "                    new.replace(self._path)",
            ),
        ),
        {"election_power": 4, "power": 1},
        _SLOW,
    ),
    Planted(
        "reads_after_the_lease",
        "a leader goes on reading by a lease that is over",
        (
            Edit(
                "raft_agent.consensus.lease",
                "return now_us < quorum.reached_by_quorum(configuration, promised)",
                "return True",
            ),
        ),
        {"partition": 5, "stop": 1},
        _RIVALS,
    ),
    Planted(
        "reads_without_a_round",
        "a leader answers linearizable reads without asking whether it still leads",
        _known("read_without_a_round"),
        {"partition": 5, "stop": 1},
        _RIVALS,
    ),
    Planted(
        "sessions_not_in_the_snapshot",
        "a snapshot holds no sessions",
        _known("sessions_not_in_the_snapshot"),
        {"kill": 5, "kill_leader": 3, "flaky": 2, "power": 1},
        Options(0, storage="snapshot_entries = 300"),
    ),
    Planted(
        "applied_twice",
        "a write that is sent again is applied again",
        (
            Edit(
                "raft_agent.machine.sessions",
                "        if known is not None:\n            return known\n",
                "        if known is not None:\n            return apply(command.command, index)\n",
            ),
        ),
        {"kill_leader": 3, "partition": 3, "flaky": 3, "stop": 3},
    ),
    Planted(
        "truncation_by_an_old_append",
        "entries that are there already cut what stands behind them",
        _known("truncation_by_an_old_append"),
        {"loss": 4, "flaky": 4, "stop": 3, "kill_leader": 2, "partition": 3},
    ),
    Planted(
        "no_look_at_the_entry_before",
        "a follower takes entries whatever stands before them",
        _known("no_look_at_the_entry_before"),
        # The next leader writes a no-op where the old one has what clients wrote.
        {"stranded": 1},
        _BRIEF,
    ),
)


def patched(edits: tuple[Edit, ...], directory: Path) -> Path:
    """A copy of the agent's source with these edits; the directory to import it from."""
    source = Path(raft_agent.__file__).parent
    shutil.copytree(source, directory / "raft_agent", ignore=shutil.ignore_patterns("__pycache__"))
    for edit in edits:
        path = directory.joinpath(*edit.module.split(".")).with_suffix(".py")
        text = path.read_text()
        if text.count(edit.old) != 1:
            raise StaleFaultError(
                f"{path.name} holds {text.count(edit.old)} times, not once:\n{edit.old}"
            )
        path.write_text(text.replace(edit.old, edit.new))
    return directory


def finds(complaints: Mapping[str, list[str]]) -> list[str]:
    """Those of a verdict's complaints that only a fault in the product explains. What took too
    long, and clients or agents that did not end in time, may be the machine's fault."""
    return [
        f"{check}: {complaint}"
        for check, found in complaints.items()
        for complaint in found
        if (check in _ONLY_BY_FAULTS and complaint != NOBODY_LED) or _IS_A_FIND.search(complaint)
    ]


def look_for(planted: Planted, first_seed: int, limit_minutes: float) -> tuple[float, int, str]:
    """(seconds until it was found, or -1; runs; what was found)."""
    began = time.monotonic()
    seed = first_seed
    while (left := limit_minutes - (time.monotonic() - began) / 60) > 0:
        directory = Path(tempfile.mkdtemp(prefix=f"raft-planted-{seed}-"))
        try:
            source = patched(planted.edits, directory / "source")
            options = replace(planted.options, seed=seed, source=source, skewed=False)
            verdict = torture(directory, options, min(_RUN_MINUTES, left), planted.weights)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        seed += 1
        found = finds(verdict.complaints)
        if found:
            text = found[0].replace("\n", " ").replace("|", "/")
            return time.monotonic() - began, seed - first_seed, text
    return -1.0, seed - first_seed, "nothing"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture.planted", description=__doc__)
    parser.add_argument("--fault", help="only this one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=LIMIT_MINUTES, help="for each fault")
    arguments = parser.parse_args()
    end_in_order()
    reason = missing()
    if reason is not None:
        print(reason, file=sys.stderr)
        return 2
    chosen = [fault for fault in PLANTED if arguments.fault in (None, fault.name)]
    missed = 0
    print("| fault | what the program does | found after | in run | by |\n|---|---|--:|--:|---|")
    for fault in chosen:
        seconds, runs, told = look_for(fault, arguments.seed, arguments.minutes)
        missed += seconds < 0
        after = f"{seconds:.0f} s" if seconds >= 0 else "not found"
        print(f"| `{fault.name}` | {fault.wrong} | {after} | {runs} | {told[:160]} |", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
