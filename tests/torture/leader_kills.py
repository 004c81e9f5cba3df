"""The leader is killed over and over: `python -m tests.torture.leader_kills --kills 200`.

For each SIGKILL: the longest time around it in which no write of any client was acknowledged, with
the default timing. Then the median, the 99th percentile and the longest of these times. What the
clients saw is checked in the end as in torture.
"""

from __future__ import annotations

import argparse
import bisect
import itertools
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.agents import wait_for
from tests.torture import checks
from tests.torture.alarms import alarms
from tests.torture.ending import end_in_order
from tests.torture.history import Record, acknowledged_ns, now_ns, read_records
from tests.torture.world import Node, Options, World, clients, end_clients, missing, world

_CALM_S = 0.3
# The answer that ends a gap comes before this, or the gap counts as so long.
_LOOK_S = 20.0
# Longer than a busy machine takes to start an agent.
_PATIENCE_S = 120.0
_P99_MS = 1000.0


def _are_well(made: World) -> Node | None:
    """The leader, once everybody answers, follows it and has what was committed."""
    statuses = made.statuses()
    if len(statuses) != made.options.voters:
        return None
    if len({status.leader for status in statuses.values()}) != 1:
        return None
    committed = max(status.commit_index for status in statuses.values())
    if any(committed - status.last_applied > 200 for status in statuses.values()):
        return None
    return made.leader()


def _well(made: World) -> Node:
    return wait_for("all to follow one leader", lambda: _are_well(made), _PATIENCE_S)


def kill_leaders(directory: Path, options: Options, kills: int) -> list[int]:
    """When it was killed. AssertionError when the cluster does not come back, or the clients end
    with anything wrong."""
    moments = []
    with world(directory, options) as made, clients(made) as working:
        time.sleep(3)  # all clients have found the cluster
        for _ in range(kills):
            leader = _well(made)
            time.sleep(_CALM_S)
            moments.append(now_ns())
            leader.kill()
            wait_for("another leader", made.leader, _PATIENCE_S)
            time.sleep(_CALM_S)
            leader.start()
        _well(made)
        time.sleep(1)
        told = end_clients(working, directory)
    assert told is None, told
    return moments


def gap_ms(acks: list[int], moment: int) -> float:
    """Of the time from just before the kill on."""
    first = max(bisect.bisect_left(acks, moment) - 1, 0)
    last = bisect.bisect_left(acks, moment + int(_LOOK_S * 1e9))
    window = acks[first : last + 1]
    # Up to the first second in which acknowledgements come closely again.
    gaps = [(b - a) / 1e6 for a, b in itertools.pairwise(window[:500])]
    return max(gaps, default=_LOOK_S * 1000)


def _complaints(directory: Path, records: Sequence[Record]) -> list[str]:
    return alarms(directory) + [
        f"{check}: {complaint}"
        for check, found in checks.check_all(records).items()
        for complaint in found
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture.leader_kills")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    end_in_order()
    reason = missing()
    if reason is not None:
        print(reason, file=sys.stderr)
        return 2
    directory = Path(tempfile.mkdtemp(prefix="raft-kills-"))
    options = Options(arguments.seed, spares=0, timing="", lossy=False, pause_s=0.01)
    moments, complaints = [], []
    try:
        moments = kill_leaders(directory, options, arguments.kills)
    except AssertionError as error:
        complaints.append(str(error))
    records = read_records(directory / "history.jsonl")
    complaints += _complaints(directory, records)
    acks = acknowledged_ns(records)
    gaps = sorted(gap_ms(acks, moment) for moment in moments)
    if gaps:
        p99 = gaps[min(int(len(gaps) * 0.99), len(gaps) - 1)]
        print(
            f"{len(gaps)} kills of the leader: no write for {statistics.median(gaps):.0f} ms in "
            f"the median, {p99:.0f} ms in the 99th percentile, {gaps[-1]:.0f} ms at most"
        )
        if p99 >= _P99_MS:
            complaints.append(f"the 99th percentile is {p99:.0f} ms, not below {_P99_MS:.0f} ms")
    if complaints:
        print(*complaints, f"history and logs: {directory}", sep="\n  ")
        return 1
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
