"""Style, types and import directions of the whole checkout; exit status 1 when one is not right.

The form of the C sources is checked where clang-format is installed.
"""

from __future__ import annotations

import shutil
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
    ("yamllint", "--strict", "--config-file", "ansible/.yamllint", "ansible", "lima"),
    ("yamllint", "--strict", "--config-file=charts/raft/.yamllint", "charts/raft"),
)
C_SOURCES = sorted([*ROOT.glob("bpf/*.c"), *ROOT.glob("bpf/*.h"), *ROOT.glob("tests/kernel/*.c")])


def main() -> int:
    """Runs all checks, even after one failed; prints what each that failed has to say."""
    fine = [passes(" ".join(check), [BIN / check[0], *check[1:]]) for check in CHECKS]
    clang_format = shutil.which("clang-format")
    if clang_format is None:
        print("left out clang-format: it is not installed")
    else:
        options = ["--dry-run", "--Werror", "--style=file:bpf/.clang-format"]
        fine.append(passes("clang-format", [clang_format, *options, *map(str, C_SOURCES)]))
    return 0 if all(fine) else 1


def passes(name: str, command: list[str | Path]) -> bool:
    """Whether a check ends well; prints what it has to say if not."""
    done = subprocess.run(  # noqa: S603
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        print(f"ok      {name}", flush=True)
        return True
    print(f"{done.stdout}FAILED  {name}", flush=True)
    return False


if __name__ == "__main__":
    sys.exit(main())
