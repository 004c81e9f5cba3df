"""The commands of docs/quickstart-kubernetes.md, in their order, with the chart and real pods."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e.kube.clusters import Cluster
from tests.e2e.kube.lab.hosts import system
from tests.e2e.kube.lab.lab import Lab
from tests.e2e.kube.place import CRD, Operator, Place

pytest.importorskip("helm_python", reason="Helm's SDK is there for Linux on x86_64 alone")
pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "quickstart-kubernetes.md"
BLOCK = re.compile(
    r"<!-- not run: tests/e2e/kube/test_quickstart.py [^\n]*\n```sh\n(.*?)^```", re.M | re.S
)
NAMESPACE = "raft-demo"
DEFINITION = "raftclusters.raft-ebpf.dev"


class Desk:
    """Where the commands are typed: a directory with the programs that people bring along."""

    def __init__(self, place: Place, lab: Lab, home: Path) -> None:
        self.place = place
        self.home = home
        self.node = lab.nodes["node-5"]
        self.node.containers.load("operator")
        (home / "bin").mkdir()
        (home / "charts").symlink_to(ROOT / "charts")
        authority = home / "ca.crt"
        authority.write_text(lab.control.authority())
        self.kubeconfig = home / "kubeconfig"
        self.kubeconfig.write_text(lab.control.kubeconfig("admin", str(authority)))
        self._bring("kubectl", str(system() / "usr/bin/kubectl"))
        self._bring("helm", sys.executable, "-m", "tests.e2e.kube.helm")
        self._bring("raftctl", str(Path(sys.executable).with_name("raftctl")))

    def _bring(self, name: str, *command: str) -> None:
        """A program of this name that runs where the API server and the nodes are reached."""
        script = self.home / "bin" / name
        words = shlex.join([*self.place.entering(), *command])
        script.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        script.chmod(0o755)

    def type_in(self, text: str) -> str:
        """What the commands print. AssertionError with what they say when one fails."""
        for shown, real in self._images().items():
            text = text.replace(shown, real)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.home,
            env=os.environ
            | {
                "KUBECONFIG": str(self.kubeconfig),
                "PATH": f"{self.home / 'bin'}:{os.environ['PATH']}",
                "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        said = f"{text}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == 0, f"{said}\n{self._state_of_operator()}"
        return done.stdout

    def _state_of_operator(self) -> str:
        """What explains most failures."""
        found = []
        for command in ("describe pods", "logs --tail=40 deployment/raft-operator"):
            with contextlib.suppress(AssertionError):
                words = [*command.split(), "--namespace=raft-system"]
                found.append(self.place.kubectl(*words))
        return "\n".join(found)

    def _images(self) -> dict[str, str]:
        """What stands on the page, and what it is here."""
        agent, version = self.place.agent_image.rsplit(":", 1)
        later = self.place.later_image.rsplit(":", 1)[1]
        operator, operator_version = self.place.operator_image.rsplit(":", 1)
        # One node is enough that has the operator's image.
        node = rf"'nodeSelector.kubernetes\.io/hostname={self.node.name}'"
        return {
            "registry.example.com/raft-operator": f"{operator},image.tag={operator_version},{node}",
            "registry.example.com/raft-agent": agent,
            "version: 0.1.0": f"version: {version}",
            '"version": "0.1.0-again"': f'"version": "{later}"',
        }


@pytest.fixture
def desk(place: Place, operator: Operator, lab: Lab, tmp_path: Path) -> Iterator[Desk]:
    """As on a Kubernetes that has never heard of RaftClusters. Not on one that others use, because
    the definition is everybody's.
    """
    operator.kill()
    place.kubectl("delete", "customresourcedefinition", DEFINITION)
    try:
        yield Desk(place, lab, tmp_path)
    finally:
        for namespace in (NAMESPACE, "raft-system"):
            place.kubectl("delete", "namespace", namespace, "--ignore-not-found")
        place.kubectl(
            *("delete", "clusterroles,clusterrolebindings", "--ignore-not-found"),
            "--selector=app.kubernetes.io/instance=raft",
        )
        # The release has left it; a test that failed may not have come so far.
        place.apply(yaml.safe_load(CRD.read_text()))


def test_the_page_does_what_it_says(desk: Desk, place: Place, tmp_path: Path) -> None:
    install, apply, message, elsewhere, change, end, away = BLOCK.findall(PAGE.read_text())
    cluster = Cluster(place, NAMESPACE, "demo", tmp_path)

    desk.type_in(install)
    assert "demo" in desk.type_in(apply)
    cluster.wait_settled(3)
    said = desk.type_in(message)
    assert "Hello from Kubernetes" in said
    assert "\nhello\n" in said

    desk.type_in(elsewhere)
    assert cluster.raftctl("demo-2", "propose", "get", "greeting") == "hello from alice\n"

    type_line_by_line(desk, cluster, change)
    assert len(cluster.pods()) == 3
    later = place.later_image
    assert {pod["spec"]["containers"][0]["image"] for pod in cluster.pods().values()} == {later}
    assert cluster.raftctl("demo-0", "propose", "get", "greeting") == "hello from alice\n"

    assert "data-demo-0" in desk.type_in(end)
    desk.type_in(away)
    assert place.api.get("/apis/apps/v1/namespaces/raft-system/deployments/raft-operator") is None


def type_line_by_line(desk: Desk, cluster: Cluster, block: str) -> None:
    """A kubectl of before 1.21 waits for nothing that was asked for a moment ago."""
    for line in block.splitlines():
        desk.type_in(line)
        spec = cluster.get()["spec"]
        cluster.wait_settled(spec["replicas"], 120)
