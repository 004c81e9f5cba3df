"""Power fails at three machines at once, over and over, under load:
`python -m tests.torture.power_loss --rounds 20`.

The machines are virtual, with Debian's kernel, ext4, and disks that forget what was not flushed
(drive.py); their processes get SIGKILL. The clients of torture run beside them, through all
failures, and what they saw is checked in the end as in torture.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.sim.planted.fault import Edit
from tests.torture import checks
from tests.torture.alarms import LOGS, alarms
from tests.torture.clients.spec import Spec
from tests.torture.ending import end_in_order
from tests.torture.guests import PORT, Guests, guests, missing
from tests.torture.history import Acknowledged, now_ns, read_records
from tests.torture.planted import PLANTED
from tests.torture.world import end_clients, start_clients

_UP_S = 300.0
# Writes that are acknowledged between two failures, and how long it is until power fails then.
_WRITES = (30, 150)
_LATER_S = 1.0
_LOOK_S = 0.1


@dataclass
class Verdict:
    """`lost`: sectors that all disks lost, for each failure; `back_s`: seconds from switching on
    until a write was acknowledged, the first start among them."""

    acknowledged: int = 0
    lost: list[int] = field(default_factory=list)
    back_s: list[float] = field(default_factory=list)
    complaints: dict[str, list[str]] = field(default_factory=dict)


def lose_power(
    directory: Path, rounds: int, seed: int = 1, edits: tuple[Edit, ...] = ()
) -> Verdict:
    """So many failures, then the verdict; `edits`: of faults that are planted in the agents."""
    verdict = Verdict()
    chance = random.Random(f"{seed}/power")
    with guests(directory, edits) as made, _clients(made, seed) as working:
        acknowledged = Acknowledged(directory / "history.jsonl")
        try:
            _come_up(made, acknowledged, verdict)
            for number in range(1, rounds + 1):
                _work(made, acknowledged, chance.randint(*_WRITES))
                time.sleep(chance.uniform(0, _LATER_S))
                # Most of the time nothing would be lost.
                made.wait_for_unflushed()
                lost = made.fail_power(chance)
                verdict.lost.append(sum(lost))
                _come_up(made, acknowledged, verdict)
                print(
                    f"round {number}: {verdict.acknowledged} writes acknowledged until then, "
                    f"{lost} sectors lost, a write {verdict.back_s[-1]:.1f} s after the power came",
                    flush=True,
                )
            told = end_clients(working, directory)
            acknowledged.look()
            verdict.acknowledged = len(acknowledged.times_ns)
        except AssertionError as error:
            told = str(error)
    if told:
        verdict.complaints["the machines come back"] = [told]
    strange = alarms(directory)
    if strange:
        verdict.complaints[LOGS] = strange
    verdict.complaints |= checks.check_all(read_records(directory / "history.jsonl"))
    return verdict


def _come_up(made: Guests, acknowledged: Acknowledged, verdict: Verdict) -> None:
    """Switch all on, and wait until a write is acknowledged."""
    acknowledged.look()
    began_ns = now_ns()
    made.switch_all_on()
    _wait(made, acknowledged, lambda: acknowledged.first_after(began_ns) is not None)
    verdict.acknowledged = len(acknowledged.times_ns)
    verdict.back_s.append(((acknowledged.first_after(began_ns) or began_ns) - began_ns) / 1e9)


def _work(made: Guests, acknowledged: Acknowledged, writes: int) -> None:
    """Until so many more writes are acknowledged."""
    enough = len(acknowledged.times_ns) + writes
    _wait(made, acknowledged, lambda: len(acknowledged.times_ns) >= enough)


def _wait(made: Guests, acknowledged: Acknowledged, is_so: Callable[[], bool]) -> None:
    ends = time.monotonic() + _UP_S
    while not is_so():
        told = made.complaint()
        assert told is None, told
        assert time.monotonic() < ends, f"too few writes were acknowledged within {_UP_S:g} s"
        time.sleep(_LOOK_S)
        acknowledged.look()


@contextmanager
def _clients(made: Guests, seed: int) -> Iterator[subprocess.Popen[bytes]]:
    files = made.papers.of_clients()
    addresses = [f"{guest.address}:{PORT}" for guest in made.all]
    spec = Spec(addresses, files.ca, files.cert, files.key, seed, pause_s=0.05)
    with start_clients(made.directory, spec, made.namespace) as working:
        yield working


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture.power_loss", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fault", help="plant this fault of planted.py in the agents")
    arguments = parser.parse_args()
    end_in_order()
    reason = missing()
    if reason is not None:
        print(reason, file=sys.stderr)
        return 2
    edits = next((fault.edits for fault in PLANTED if fault.name == arguments.fault), ())
    directory = Path(tempfile.mkdtemp(prefix="raft-power-"))
    verdict = lose_power(directory, arguments.rounds, arguments.seed, edits)
    print(
        f"{len(verdict.lost)} power failures, {verdict.acknowledged} writes acknowledged, "
        f"{sum(verdict.lost)} sectors lost, a write at most {max(verdict.back_s, default=0):.1f} s "
        f"after the power came: {'VIOLATED' if verdict.complaints else 'ok'}"
    )
    for check, complaints in verdict.complaints.items():
        print(f"  not so: {check}", *complaints, sep="\n    ")
    if verdict.complaints:
        print(f"  history and logs: {directory}")
        return 1
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
