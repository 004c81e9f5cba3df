"""Everything here makes network namespaces and loads programs: root on Linux only."""

from __future__ import annotations

import os
import shutil
import sys

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = _what_is_missing()
    if reason:
        for item in items:
            if "tests/kernel/" in item.nodeid:
                item.add_marker(pytest.mark.skip(reason=reason))


def _what_is_missing() -> str:
    if sys.platform != "linux":
        return "needs Linux"
    if os.geteuid() != 0:
        return "needs root: it makes network namespaces and loads programs into the kernel"
    for program in ("ip", "tc"):
        if shutil.which(program) is None:
            return f"needs {program} (apt-get install iproute2)"
    return ""
