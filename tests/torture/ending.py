"""A run that is ended takes away what it has made: agents, namespaces, mounts."""

from __future__ import annotations

import signal
import sys
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def end_in_order(*, as_interrupted: bool = False) -> None:
    """From now on SIGTERM and SIGINT unwind this process, also where a shell that put it into the
    background had it ignore the latter. `as_interrupted`: both do it as Ctrl-C does, since pytest
    takes the end of a process for one test that failed."""

    def end(number: int, _frame: FrameType | None) -> None:
        # What cleans up is not to be broken off by whoever loses patience.
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        if as_interrupted or number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)

    for each in _SIGNALS:
        signal.signal(each, end)
