"""Gives the input in a file to a target: python -m tests.fuzz.replay TARGET FILE…"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.fuzz.catalogue import TARGETS


def main() -> None:
    name, *files = sys.argv[1:]
    for file in files:
        TARGETS[name].run(Path(file).read_bytes())
        print(f"{file}: nothing is wrong")


if __name__ == "__main__":
    main()
