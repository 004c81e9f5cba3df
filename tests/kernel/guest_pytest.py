"""The first and only process of a virtual machine: runs tests with this host's Python and pytest,
and switches the machine off. Its arguments are pytest's.

One line for each test: "result OUTCOME NAME", what failed in full, and "done" at the very end.
"""

from __future__ import annotations

import ctypes
import os
import sys
import traceback

_POWER_OFF = 0x4321FEDC  # RB_POWER_OFF of <sys/reboot.h>
_MOUNTS = (("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"))


class Reporter:
    """A plugin of pytest."""

    def pytest_runtest_logreport(self, report: object) -> None:
        outcome, when = report.outcome, report.when  # type: ignore[attr-defined]
        if when == "call" or outcome != "passed":
            # The line before is pytest's own, of dots, and has no end yet.
            print(f"\nresult {outcome} {report.nodeid}", flush=True)  # type: ignore[attr-defined]
            if outcome != "passed":
                print(report.longreprtext, flush=True)  # type: ignore[attr-defined]


def main() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for kind, place in _MOUNTS:
        if libc.mount(kind.encode(), place.encode(), kind.encode(), 0, None):
            raise OSError(ctypes.get_errno(), f"mount {place}")
    import pytest  # noqa: PLC0415  # it wants a file system under /dev

    status = pytest.main(
        [
            "--noconftest",
            "--import-mode=importlib",
            "-p",
            "no:cacheprovider",
            "--color=no",
            "-q",
            *sys.argv[1:],
        ],
        plugins=[Reporter()],
    )
    print(f"status {int(status)}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        traceback.print_exc()
    print("done", flush=True)
    os.sync()
    ctypes.CDLL(None).reboot(_POWER_OFF)
