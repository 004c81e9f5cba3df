"""Style, types and import directions of the whole checkout; exit status 1 when one is not right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

CHECKS = (
    ("ruff", "check", "--quiet", "."),
    ("ruff", "format", "--check", "--quiet", "."),
    ("mypy",),
    ("lint-imports",),
)


def main() -> int:
    """Runs all checks, even after one failed; prints what each that failed has to say."""
    failed = 0
    for program, *arguments in CHECKS:
        done = subprocess.run(  # noqa: S603
            [BIN / program, *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        said = " ".join((program, *arguments))
        if done.returncode == 0:
            print(f"ok      {said}", flush=True)
            continue
        failed += 1
        print(f"{done.stdout}FAILED  {said}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
