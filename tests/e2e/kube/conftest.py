"""One Kubernetes for all of these tests: that of KUBECONFIG, or one of their own."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e.kube.clusters import Cluster, clusters
from tests.e2e.kube.lab.lab import Lab
from tests.e2e.kube.place import CRD, Operator, Place, of_somebody_else, of_the_tests, rights
from tests.torture.clocks import Clock, build

OPERATOR = "raft-operator"


def _cannot() -> str | None:
    """Why there can be no Kubernetes of the tests' own here."""
    if os.geteuid() != 0:
        return "hosts that are namespaces take root"
    for program in ("gcc", "ip", "mmdebstrap", "nsenter", "unshare"):
        if shutil.which(program) is None:
            return f"{program} is not installed (tools/setup.sh kube installs it)"
    return None


@pytest.fixture(scope="package")
def place() -> Iterator[Place]:
    if os.environ.get("KUBECONFIG"):
        with of_somebody_else() as found:
            yield found
        return
    reason = _cannot()
    if reason is not None:
        pytest.skip(reason)
    with of_the_tests() as made:
        yield made


@pytest.fixture(scope="package")
def _operator(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    home = tmp_path_factory.mktemp("operator")
    place.apply(yaml.safe_load(CRD.read_text()))
    place.kubectl("wait", "--for=condition=Established", "--timeout=30s",
                  "crd/raftclusters.raft-ebpf.dev")  # fmt: skip
    kubeconfig = Path(os.environ.get("KUBECONFIG", home / "kubeconfig"))
    clock = None
    if place.lab is not None:
        clock = Clock(home / "clock", build(home), rate_ppm=0)
        place.apply(*rights(OPERATOR))
        authority = home / "ca.crt"
        authority.write_text(place.lab.control.authority())
        kubeconfig.write_text(place.lab.control.kubeconfig(OPERATOR, str(authority)))
    made = place.operator = Operator(place, kubeconfig, home / "operator.log", clock)
    yield made
    made.kill()


@pytest.fixture
def operator(_operator: Operator, request: pytest.FixtureRequest) -> Iterator[Operator]:
    """It runs; what it said since is printed when the test fails."""
    _operator.ensure()
    begin = _operator.log.stat().st_size
    yield _operator
    with _operator.log.open() as log:
        log.seek(begin)
        print(log.read())


@pytest.fixture
def make(
    place: Place, operator: Operator, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], Cluster]]:
    """Makes handles of clusters in a namespace of the test's own. They are gone afterwards; what is
    left of the namespace goes while the next test begins.
    """
    name = re.sub("[^a-z0-9]+", "-", request.node.name.lower())[-60:].strip("-")
    with place.namespace(name, waits=False) as namespace, clusters(place, namespace) as made:
        yield made


@pytest.fixture
def lab(place: Place) -> Lab:
    """For tests that break nodes or the API server."""
    if place.lab is None:
        pytest.skip("the nodes of a Kubernetes that others use are not broken")
    return place.lab
