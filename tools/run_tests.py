"""`make test`: lint and all tests, what could not run here, and one line that sums it up.

The simulator needs a core for minutes and no clock, so it runs beside the lint, the unit tests and
the short fuzzing; the integration tests have the machine to themselves. Arguments go to every
pytest.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent


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
    """One pytest over some folders, perhaps in the background with its output kept for later."""

    def __init__(self, name: str, scratch: Path, arguments: list[str], *, behind: bool) -> None:
        self.name = name
        self.report = scratch / f"{name}.xml"
        self._output = (scratch / f"{name}.txt").open("w+") if behind else None
        self._process = subprocess.Popen(  # noqa: S603
            [
                *(sys.executable, "-m", "pytest", f"--junitxml={self.report}"),
                *("-o", f"cache_dir={scratch / name}"),
                *arguments,
                f"tests/{name}",
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
            print(f"tests/{self.name}: pytest ended with status {status} and no report")
            totals.errors.append(f"tests/{self.name}")
            return False
        totals.add(self.report)
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
                fine &= Part(name, scratch, arguments, behind=False).finish(totals)
        if behind is not None:
            fine &= behind.finish(totals)
        for name in ("kernel", "e2e", "torture"):
            if name in parts:
                fine &= Part(name, scratch, arguments, behind=False).finish(totals)
    finally:
        if behind is not None:
            behind.stop()
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
    with tempfile.TemporaryDirectory(prefix="raft-tests-") as scratch:
        fine = run(sys.argv[1:], Path(scratch), totals)
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
