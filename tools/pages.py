"""What the generators of single pages share."""

from __future__ import annotations

import sys
from pathlib import Path


def put_out(page: str) -> None:
    """Prints the page, or writes it to the path that is given on the command line."""
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(page)
    else:
        print(page, end="")
