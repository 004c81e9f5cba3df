"""Where the tests run: a Kubernetes, how it is reached, and what runs the operator there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import yaml

from tests.e2e.agents import wait_for
from tests.e2e.kube.api import Api, Object
from tests.e2e.kube.lab import images
from tests.e2e.kube.lab.lab import Lab, running
from tests.kernel.netns import enter, inside
from tests.torture.clocks import Clock

ROOT = Path(__file__).resolve().parents[3]
PERMISSIONS = ROOT / "operator" / "raft_operator" / "permissions.yaml"
CRD = ROOT / "charts" / "raft" / "crd-bases" / "raft-ebpf.dev_raftclusters.yaml"


class Place:
    """`lab`: None on a Kubernetes that is not the tests' own, whose nodes they leave alone.

    The images must be there already: on a foreign one RAFT_TEST_AGENT_IMAGE,
    RAFT_TEST_LATER_IMAGE and RAFT_TEST_OPERATOR_IMAGE name them.
    """

    def __init__(self, api: Api, kubectl: Callable[..., str], lab: Lab | None) -> None:
        self.api = api
        self.kubectl = kubectl
        self.lab = lab
        self.operator: Operator | None = None
        self.agent_image = os.environ.get("RAFT_TEST_AGENT_IMAGE", images.AGENT)
        # Another name of the same: what an update does is not what it updates to.
        self.later_image = os.environ.get("RAFT_TEST_LATER_IMAGE", images.LATER_AGENT)
        self.operator_image = os.environ.get("RAFT_TEST_OPERATOR_IMAGE", images.OPERATOR)

    def apply(self, *documents: Mapping[str, object]) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": list(documents)}
        self.kubectl("apply", "--validate=false", "-f", "-", stdin=json.dumps(listed))

    def inside(self) -> AbstractContextManager[None]:
        """This thread, and threads that it starts, reach nodes and API server."""
        return nullcontext() if self.lab is None else inside(self.lab.desk)

    def entering(self) -> list[str]:
        """In front of a command: run it where nodes and API server can be reached."""
        return [] if self.lab is None else enter(self.lab.desk)

    @contextmanager
    def namespace(self, name: str, *, waits: bool = True) -> Iterator[str]:
        """A namespace of this name; it and all that is in it are gone afterwards, or only go unless
        it `waits`.
        """
        self.api.create("/api/v1/namespaces", {"metadata": {"name": name}})
        try:
            yield name
        finally:
            self.api.delete(f"/api/v1/namespaces/{name}")

            def gone() -> bool | None:
                return True if self.api.get(f"/api/v1/namespaces/{name}") is None else None

            if waits:
                self.api.wait(f"namespace {name} to be gone", gone, 300)


def rights(user: str) -> list[Object]:
    """What the operator is granted, as `user`."""
    granted = yaml.safe_load(PERMISSIONS.read_text())
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": user},
        "rules": granted["cluster"] + granted["namespaced"],
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }
    return [role, binding]


class Operator:
    """raft-operator as a process on this machine, with the rights of its own account. `clock`: what
    it takes for the time; None for the machine's.
    """

    def __init__(
        self, place: Place, kubeconfig: Path, log: Path, clock: Clock | None = None
    ) -> None:
        self._place = place
        self._kubeconfig = kubeconfig
        self.log = log
        self.clock = clock
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        settings = {"KUBECONFIG": str(self._kubeconfig)}
        if self.clock is not None:
            settings |= self.clock.environment
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._place.entering(), sys.executable, "-m", "raft_operator.main"],
                env={**os.environ, **settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def ensure(self) -> None:
        """It runs, also when a test before has ended it."""
        if self._process is None or self._process.poll() is not None:
            self.start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def check(self) -> None:
        """AssertionError when it has ended by itself."""
        process = self._process
        assert process is None or process.poll() is None, self.log.read_text()[-3000:]

    def kill(self) -> None:
        """SIGKILL: what it was about to do next it does not do."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def stop(self) -> int:
        """SIGTERM, and wait; the exit status."""
        process, self._process = self._process, None
        assert process is not None
        process.terminate()
        return process.wait(30)


@contextmanager
def of_the_tests() -> Iterator[Place]:
    """A Kubernetes that is there for the tests alone."""
    with running() as lab:
        control = lab.control
        socket = control.host.files / "proxy.sock"
        control.host.start(
            *("proxy", "kubectl", "--kubeconfig=/lab/home/admin.kubeconfig", "proxy"),
            *("--unix-socket=/lab/home/proxy.sock", "--reject-methods=^$"),
        )
        wait_for("kubectl proxy", lambda: True if socket.exists() else None)
        yield Place(Api(socket), control.kubectl, lab)


@contextmanager
def of_somebody_else() -> Iterator[Place]:
    """The one that KUBECONFIG names."""
    assert shutil.which("kubectl"), "KUBECONFIG is set, and there is no kubectl"
    with tempfile.TemporaryDirectory(prefix="raft-kube-") as home:
        socket = Path(home) / "proxy.sock"
        process = subprocess.Popen(
            ["kubectl", "proxy", f"--unix-socket={socket}", "--reject-methods=^$"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            wait_for("kubectl proxy", lambda: True if socket.exists() else None)
            yield Place(Api(socket), _kubectl, None)
        finally:
            process.terminate()
            process.wait()


def _kubectl(*arguments: str, stdin: str = "") -> str:
    done = subprocess.run(
        ["kubectl", *arguments], input=stdin, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
    return done.stdout
