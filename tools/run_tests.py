"""`make test`: lint and all tests, what could not run here, and one line that sums it up.

The simulator needs a core for minutes and no clock, so it runs beside the lint, the unit tests and
the short fuzzing; the integration tests have the machine to themselves.

With `--long`, `make test-e2e`: what takes minutes. Whole systems mostly wait, for boots, for
programs that start and for pods, so they run beside the agents that are tested by themselves.

Other arguments go to every pytest.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
LONG = "--long"
_SYSTEMS = ("tests/e2e/deploy", "tests/e2e/kube")
# (name, what it runs); those but the last run behind it.
_LONG_LANES = (
    ("systems", _SYSTEMS),
    ("agents", ("tests", *(f"--ignore={path}" for path in _SYSTEMS))),
)


@dataclass
class Totals:
    """What the reports of all parts add up to; `not_run` are (test, reason), the others names."""

    passed: int = 0
    failed: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    not_run: list[tuple[str, str]] = field(default_factory=list)

    def add(self, report: Path) -> None:
        """Adds a report in pytest's JUnit form."""
        for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314  # our own file
            skipped = case.find("skipped")
            name = f"{case.get('classname', '')}::{case.get('name', '')}".lstrip(":")
            if case.find("error") is not None:
                self.errors.append(name)
            elif case.find("failure") is not None:
                self.failed.append(name)
            elif skipped is not None:
                self.not_run.append((name, skipped.get("message") or "no reason given"))
            else:
                self.passed += 1


class Part:
    """One pytest, of tests/`name` or of other `paths`, perhaps in the background with its output
    kept for later."""

    def __init__(
        self,
        name: str,
        scratch: Path,
        arguments: Sequence[str],
        *,
        paths: Sequence[str] = (),
        behind: bool = False,
    ) -> None:
        self.name = name
        self.report = scratch / f"{name}.xml"
        self._output = (scratch / f"{name}.txt").open("w+") if behind else None
        self._process = subprocess.Popen(  # noqa: S603
            [
                *(sys.executable, "-m", "pytest", f"--junitxml={self.report}"),
                *("-o", f"cache_dir={scratch / name}"),
                *arguments,
                *(paths or [f"tests/{name}"]),
            ],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT if behind else None,
        )

    def finish(self, totals: Totals) -> bool:
        """Waits; shows output that was kept; whether all is well."""
        status = self._process.wait()
        if self._output is not None:
            self._output.seek(0)
            print(self._output.read(), flush=True)
            self._output.close()
        if not self.report.exists():
            print(f"{self.name}: pytest ended with status {status} and no report")
            totals.errors.append(self.name)
            return False
        known = len(totals.failed) + len(totals.errors)
        totals.add(self.report)
        if status and len(totals.failed) + len(totals.errors) == known:
            totals.errors.append(f"{self.name}: pytest ended with status {status}")
        return status == 0

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()


def run(arguments: list[str], scratch: Path, totals: Totals) -> bool:
    """Everything, in its order; whether all is well. A part without tests yet is left out."""
    parts = {
        name
        for name in ("unit", "fuzz", "sim", "kernel", "e2e", "torture")
        if any((ROOT / "tests" / name).glob("test_*"))
    }
    behind = Part("sim", scratch, arguments, behind=True) if "sim" in parts else None
    try:
        lint = [sys.executable, "tools/lint.py"]
        fine = subprocess.run(lint, cwd=ROOT, check=False).returncode == 0  # noqa: S603
        for name in ("unit", "fuzz"):
            if name in parts:
                fine &= Part(name, scratch, arguments).finish(totals)
        if behind is not None:
            fine &= behind.finish(totals)
        for name in ("kernel", "e2e", "torture"):
            if name in parts:
                fine &= Part(name, scratch, arguments).finish(totals)
    finally:
        if behind is not None:
            behind.stop()
    return fine


def run_long(arguments: list[str], scratch: Path, totals: Totals) -> bool:
    """What takes minutes, in lanes beside each other; whether all is well."""
    marked = ["-m", "long", "--durations=15", *arguments]
    *behind, before = _LONG_LANES
    parts = [Part(name, scratch, marked, paths=paths, behind=True) for name, paths in behind]
    try:
        fine = Part(before[0], scratch, marked, paths=before[1]).finish(totals)
        for part in parts:
            fine &= part.finish(totals)
    finally:
        for part in parts:
            part.stop()
    return fine


def _summarize(totals: Totals, fine: bool) -> None:
    print()
    if totals.not_run:
        print("This machine could not run:")
        for name, reason in totals.not_run:
            print(f"  {name}: {reason}")
    elif fine:
        print("This machine could run everything.")
    broken = totals.failed + totals.errors
    for name in broken:
        print(f"Not right: {name}")
    if not fine and not broken:
        print(
            "All tests passed, but the style, the types or the imports are not right (see above)."
        )


def main() -> int:
    started = time.monotonic()
    totals = Totals()
    run_all = run_long if LONG in sys.argv else run
    arguments = [argument for argument in sys.argv[1:] if argument != LONG]
    with tempfile.TemporaryDirectory(prefix="raft-tests-") as scratch:
        fine = run_all(arguments, Path(scratch), totals)
    _summarize(totals, fine)
    counts = {
        "failed": len(totals.failed),
        "passed": totals.passed,
        "skipped": len(totals.not_run),
        "error" if len(totals.errors) == 1 else "errors": len(totals.errors),
    }
    said = ", ".join(
        f"{count} {word}" for word, count in counts.items() if count or word == "passed"
    )
    print(f"==== {said} in {time.monotonic() - started:.1f}s ====", flush=True)
    return 0 if fine else 1


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
