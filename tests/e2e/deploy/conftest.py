"""What the machines need of this one, and the cluster that most tests share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator

import pytest

from tests.e2e.deploy.cluster import Shared
from tests.e2e.deploy.machines import ROOT, Site

_failed = pytest.StashKey[bool]()
_measured = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def able() -> None:
    """Skips where machines can't be booted, with the reason."""
    if os.geteuid() != 0:
        pytest.skip("booting machines takes root")
    for program in ("mmdebstrap", "systemd-nspawn", "ssh", "ssh-keygen"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (tools/setup.sh machines installs it)")
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "true"]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"root may make no namespaces here: {tried.stderr.strip()}")


@pytest.fixture(scope="session")
def bundle(able: None) -> None:
    """The wheels come from the internet, which the test's network does not reach."""
    machine = os.uname().machine
    command = [sys.executable, str(ROOT / "tools" / "bundle.py"), f"--machine={machine}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def measured(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Takes down what the summary says at the end, whether the test passes or not."""
    return pytestconfig.stash.setdefault(_measured, []).append


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if lines := config.stash.get(_measured, []):
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_failed] = True
    return report


@pytest.fixture(scope="package")
def _shared(bundle: None, measured: Callable[[str], None]) -> Iterator[Shared]:
    shared = Shared(measured)
    yield shared
    shared.close()


@pytest.fixture
def cluster(_shared: Shared, request: pytest.FixtureRequest) -> Iterator[Site]:
    """A healthy cluster of the machines NAMES, as site.yml has made it of bare ones. Tests use it
    one after the other, so each leaves it as it should be, or says that it is spent. That of a test
    that failed is nobody else's.
    """
    made = _shared.take()
    yield made
    if request.node.stash.get(_failed, False):
        _shared.close(keep=True)
