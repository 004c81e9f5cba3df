"""The leader is killed over and over: `python -m tests.torture.leader_kills --kills 200`.

For each SIGKILL: the longest time around it in which no write of any client was acknowledged, with
the default timing. Then the median, the 99th percentile and the longest of these times.
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
from pathlib import Path

from tests.torture.ending import end_in_order
from tests.torture.history import now_ns, read_records
from tests.torture.world import Node, Options, World, clients, missing, world

_CALM_S = 0.3
# The answer that ends a gap comes before this, or the gap counts as so long.
_LOOK_S = 20.0


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
    while True:
        leader = _are_well(made)
        if leader is not None:
            return leader
        time.sleep(0.02)


def kill_leaders(directory: Path, options: Options, kills: int) -> list[float]:
    """Milliseconds without an acknowledged write, one for each kill."""
    moments = []
    with world(directory, options) as made, clients(made) as working:
        time.sleep(3)  # all clients have found the cluster
        for _ in range(kills):
            leader = _well(made)
            time.sleep(_CALM_S)
            moments.append(now_ns())
            leader.kill()
            while made.leader() is None:
                time.sleep(0.02)
            time.sleep(_CALM_S)
            leader.start()
        _well(made)
        time.sleep(1)
        assert working.stdin is not None
        working.stdin.write(b"\n")
        working.stdin.flush()
        working.wait(90)
    records = read_records(directory / "history.jsonl")
    acks = sorted(r.returned_ns for r in records if r.outcome == "ok" and r.index and r.called_ns)
    return [_gap_ms(acks, moment) for moment in moments]


def _gap_ms(acks: list[int], moment: int) -> float:
    """Of the time from just before the kill on."""
    first = max(bisect.bisect_left(acks, moment) - 1, 0)
    last = bisect.bisect_left(acks, moment + int(_LOOK_S * 1e9))
    window = acks[first : last + 1]
    # Up to the first second in which acknowledgements come closely again.
    gaps = [(b - a) / 1e6 for a, b in itertools.pairwise(window[:500])]
    return max(gaps, default=_LOOK_S * 1000)


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
    try:
        gaps = sorted(kill_leaders(directory, options, arguments.kills))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    p99 = gaps[min(int(len(gaps) * 0.99), len(gaps) - 1)]
    print(
        f"{len(gaps)} kills of the leader: no write for {statistics.median(gaps):.0f} ms in the "
        f"median, {p99:.0f} ms in the 99th percentile, {gaps[-1]:.0f} ms at most"
    )
    return 0 if p99 < 1000 else 1


if __name__ == "__main__":
    sys.exit(main())
