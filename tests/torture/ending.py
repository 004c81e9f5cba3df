"""A run that is ended takes away what it has made: agents, namespaces, mounts."""

from __future__ import annotations

import signal
import sys


def end_in_order() -> None:
    """From now on SIGTERM and SIGINT unwind this process, also where a shell that put it into the
    background had it ignore the latter."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    signal.signal(signal.SIGINT, signal.default_int_handler)
