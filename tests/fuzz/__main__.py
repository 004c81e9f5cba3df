"""`make fuzz`: gives every target its share of the time, one process after the other.

    python -m tests.fuzz --minutes 10 [--target NAME]…

Inputs that reach something new are kept in build/fuzz, so that the next run goes on there. An input
that is a finding is moved to tests/fuzz/corpus/TARGET, where the suite replays it.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.catalogue import TARGETS
from tests.fuzz.report import Run, read, table
from tests.fuzz.target import Target

ROOT = Path(__file__).resolve().parents[2]
FINDINGS = Path(__file__).resolve().parent / "corpus"
MEMORY_LIMIT_MIB = 512
# A single input that takes longer is a finding, too.
INPUT_TIMEOUT_S = 20
# The same fault again and again would fill the disk.
MOST_FINDINGS = 3


def fuzz(target: Target, seconds: int, work: Path) -> Run:
    """Fuzz one target for so long, or until it has had MOST_FINDINGS."""
    kept, scratch = work / target.name / "kept", work / target.name / "found"
    for directory in (kept, scratch):
        directory.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds():
        (kept / hashlib.sha256(seed).hexdigest()[:24]).write_bytes(seed)
    options = (
        f"-max_total_time={seconds}",
        f"-max_len={target.max_bytes}",
        f"-rss_limit_mb={MEMORY_LIMIT_MIB}",
        f"-timeout={INPUT_TIMEOUT_S}",
        f"-artifact_prefix={scratch}/",
        "-print_final_stats=1",
        str(kept),
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.worker", target.name, *options],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    seconds_taken = time.monotonic() - started
    found = tuple(_keep(target.name, file) for file in sorted(scratch.iterdir()))
    if done.returncode and not found:
        sys.exit(f"{done.stdout[-4000:]}\nfuzzing {target.name} ended with {done.returncode}")
    if found:
        _show(target.name, found, done.stdout)
    return read(target.name, seconds_taken, done.stdout, found)


def _keep(name: str, file: Path) -> str:
    """Move an input that is a finding to where the suite replays it."""
    directory = FINDINGS / name
    directory.mkdir(parents=True, exist_ok=True)
    kept = directory / f"{file.name.partition('-')[0]}-{_digest(file)}"
    kept.write_bytes(file.read_bytes())
    file.unlink()
    return str(kept.relative_to(ROOT))


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def _show(name: str, found: Sequence[str], output: str) -> None:
    start = max(output.rfind("=== Uncaught Python exception"), 0)
    print(output[start:][:4000] if start else output[-2000:])
    for path in found:
        print(f"finding of {name}: {path}\n  repeat: python -m tests.fuzz.replay {name} {path}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 when something was found, 2 when atheris is missing."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), default=None)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "fuzz")
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("atheris") is None:
        print("needs atheris: make fuzz installs it (pip install -r requirements/fuzz.txt)")
        return 2
    targets = [TARGETS[name] for name in options.target or TARGETS]
    seconds = max(round(options.minutes * 60 / len(targets)), 1)
    runs: list[Run] = []
    for target in targets:
        left, run_seconds = MOST_FINDINGS, seconds
        while left and run_seconds > 0:
            run = fuzz(target, run_seconds, options.work)
            runs.append(run)
            print(table([run]).splitlines()[2], flush=True)
            if not run.findings:
                break
            left -= 1
            run_seconds -= round(run.seconds)
    print(table(runs))
    return 1 if any(run.findings for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
