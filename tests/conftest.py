"""With CI=true a test that could not run is a failure, unless tests/allowed-skips.txt names it."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes is the machine's affair.
settings.register_profile("raft", deadline=None)
# For emulated processors.
settings.register_profile("few", deadline=None, max_examples=10)
settings.load_profile("raft")

ALLOWED_SKIPS = Path(__file__).with_name("allowed-skips.txt")

_strict = pytest.StashKey[list[tuple[re.Pattern[str], str]]]()


def _allowed() -> Iterator[tuple[re.Pattern[str], str]]:
    """(pattern over test names, reason) of each line of the file."""
    for number, line in enumerate(ALLOWED_SKIPS.read_text().splitlines(), 1):
        words = line.split(maxsplit=1)
        if not words or line.startswith("#"):
            continue
        if len(words) < 2:
            raise pytest.UsageError(f"{ALLOWED_SKIPS}:{number}: {words[0]} is given no reason")
        # fnmatch would take the brackets of a parametrized test for a set of characters.
        yield re.compile(".*".join(map(re.escape, words[0].split("*")))), words[1]


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("CI", "").lower() in {"true", "1"}:
        config.stash[_strict] = list(_allowed())


def _fail_if_skipped(
    config: pytest.Config, report: pytest.TestReport | pytest.CollectReport
) -> None:
    allowed = config.stash.get(_strict, None)
    if allowed is None or not report.skipped or hasattr(report, "wasxfail"):
        return
    if any(pattern.fullmatch(report.nodeid) for pattern, _ in allowed):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid} could not run: {reason} ({ALLOWED_SKIPS.name} has no line)"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_if_skipped(item.config, report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_skipped(collector.config, report)
    return report
