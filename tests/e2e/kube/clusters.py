"""A RaftCluster as its owner sees it: applied, scaled, watched, written to and deleted."""

from __future__ import annotations

import base64
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from raft_agent.api.client import AgentNotReachable, Endpoint, RaftClientError, SyncClient
from raft_agent.tls.authority import Subject, key_pem, make_key, read_authority
from raft_agent.tls.files import TlsFiles
from raft_agent.tls.identity import Kind, Role
from tests.e2e.kube.api import CLUSTERS, PODS, Object
from tests.e2e.kube.place import Place
from tests.e2e.writers import Writers

T = TypeVar("T")

PORT = 5555
# A machine that has other work takes longer; what counts is said with what was measured.
_PATIENCE = 4
# Five nodes and all of Kubernetes share a few processors: nobody is to be voted out for that.
_TIMING = {
    "heartbeatIntervalMs": 100,
    "electionTimeoutMinMs": 400,
    "electionTimeoutMaxMs": 800,
}


class Cluster:
    """The RaftCluster `name` in `namespace`."""

    def __init__(self, place: Place, namespace: str, name: str, home: Path) -> None:
        self.place = place
        self.api = place.api
        self.namespace = namespace
        self.name = name
        self._home = home
        self._collection = CLUSTERS.format(namespace)
        self.path = f"{self._collection}/{name}"

    def create(self, replicas: int, **spec: object) -> None:
        image, _, tag = self.place.agent_image.rpartition(":")
        self.api.create(
            self._collection,
            {
                "apiVersion": "raft-ebpf.dev/v1alpha1",
                "kind": "RaftCluster",
                "metadata": {"name": self.name},
                "spec": {
                    "replicas": replicas,
                    "image": image,
                    "version": tag,
                    "timing": _TIMING,
                    **spec,
                },
            },
        )

    def change(self, **spec: object) -> None:
        self.api.merge(self.path, {"spec": spec})

    def annotate(self, **annotations: str | None) -> None:
        self.api.merge(self.path, {"metadata": {"annotations": annotations}})

    def get(self) -> Object:
        return self.api.request("GET", self.path)

    def status(self) -> Object:
        found: Object = self.get().get("status", {})
        return found

    def condition(self, kind: str) -> Object:
        """{} while there is none."""
        for each in self.status().get("conditions", []):
            if each["type"] == kind:
                return dict(each)
        return {}

    def is_observed(self) -> bool:
        """Whether the status is about the spec as it is."""
        found = self.get()
        generation: int = found["metadata"]["generation"]
        return bool(found.get("status", {}).get("observedGeneration") == generation)

    def pods(self) -> dict[str, Object]:
        """Those that are not about to go, by name."""
        items = self.api.items(f"{PODS.format(self.namespace)}?labelSelector={self._selector()}")
        return {
            pod["metadata"]["name"]: pod
            for pod in items
            if "deletionTimestamp" not in pod["metadata"]
        }

    def _selector(self) -> str:
        return f"raft-ebpf.dev/cluster%3D{self.name}"

    def wait(self, what: str, probe: Callable[[], T | None], timeout_s: float = 60) -> T:
        """`timeout_s`: on a machine with two cores and nothing else to do. Prints how long it took.
        AssertionError with the cluster's status when it does not come to it.
        """
        began = time.monotonic()

        def ask() -> T | None:
            if self.place.operator is not None:
                self.place.operator.check()
            return probe()

        try:
            found = self.api.wait(f"{self.name} {what}", ask, timeout_s * _PATIENCE)
        except AssertionError as error:
            status = json.dumps(self.status(), indent=1)
            raise AssertionError(f"{error}; its status: {status}") from None
        print(f"{self.name} took {time.monotonic() - began:.1f} s {what}")
        return found

    def wait_settled(self, replicas: int, timeout_s: float = 60) -> Object:
        """Until it has that many members, all voters, healthy, and the operator has nothing to do;
        the status then.
        """

        def settled() -> Object | None:
            found = self.get()
            status = found.get("status", {})
            conditions = {each["type"]: each["status"] for each in status.get("conditions", [])}
            members = status.get("members", [])
            is_settled = (
                status.get("observedGeneration") == found["metadata"]["generation"]
                and conditions.get("Available") == "True"
                and conditions.get("Progressing") == "False"
                and conditions.get("Degraded") == "False"
                and status.get("readyReplicas") == replicas
                and [each["role"] for each in members] == ["voter"] * replicas
                and all(each["health"] == "healthy" for each in members)
            )
            return status if is_settled else None

        return self.wait(f"to settle with {replicas} members", settled, timeout_s)

    def delete(self) -> None:
        """Until it is gone."""
        self.api.delete(self.path)
        self.wait("to be gone", lambda: True if self.api.get(self.path) is None else None, 60)

    # --- its members ------------------------------------------------------------------------------

    def leader(self) -> str:
        """As the status has it."""
        return self.wait("to have a leader", lambda: self.status().get("leader") or None)

    def raftctl(self, pod: str, *arguments: str) -> str:
        """The output of raftctl in a pod."""
        return self.place.kubectl(
            *("exec", f"--namespace={self.namespace}", pod, "--", "raftctl", *arguments)
        )

    def asked(self, pod: str, *arguments: str) -> Object:
        """What raftctl says as JSON."""
        found: Object = json.loads(self.raftctl(pod, "-o", "json", *arguments))
        return found

    def secret(self, name: str) -> dict[str, bytes]:
        """The files in one of its Secrets."""
        found = self.api.request(
            "GET", f"/api/v1/namespaces/{self.namespace}/secrets/{self.name}-{name}"
        )
        return {file: base64.b64decode(text) for file, text in found["data"].items()}

    def files(self) -> TlsFiles:
        """Of a client of its own, which may write."""
        pem = self.secret("authority")
        authority = read_authority(pem["tls.crt"], pem["tls.key"])
        key = make_key()
        subject = Subject(Kind.CLIENT, "tester", role=Role.WRITER)
        paths = {name: self._home / f"{self.name}-{name}.pem" for name in ("ca", "cert", "key")}
        paths["ca"].write_bytes(pem["tls.crt"])
        paths["cert"].write_bytes(authority.sign(subject, key.public_key()))
        paths["key"].touch(mode=0o600)
        paths["key"].write_bytes(key_pem(key))
        return TlsFiles(*(str(paths[name]) for name in ("ca", "cert", "key")))

    def endpoints(self) -> dict[str, Endpoint]:
        """By member."""
        files = self.files()
        return {
            name: Endpoint(f"{pod['status']['hostIP']}:{PORT}", files, server_name=name)
            for name, pod in self.pods().items()
            if "hostIP" in pod["status"]
        }

    @contextmanager
    def writing(self, clients: int = 2) -> Iterator[Writers]:
        """Clients write to the members that there are at the moment; what was acknowledged must be
        there at the end.
        """
        with self.place.inside():
            writers = Writers(self.endpoints(), clients, pause_s=0.01)
            with writers.writing():
                self.wait("to acknowledge", lambda: True if writers.acks else None, 30)
                yield writers
            print(f"{self.name}: {writers.words()}")
            assert writers.errors == [], writers.errors[:3]
            self.holds(writers)

    def holds(self, writers: Writers) -> None:
        """Whether every acknowledged write is there, read linearizably."""
        written = {key for _, key in writers.acks}
        found = self.wait("to be read", self._keys)
        assert written <= found, f"lost: {sorted(written - found)[:10]}"

    def _keys(self) -> set[str] | None:
        """Those of the writers; None while the leader can't be asked."""
        found: set[str] = set()
        after = ""
        try:
            client = SyncClient(self.endpoints()[self.leader()], 30)
        except AgentNotReachable:
            return None
        with client:
            while True:
                try:
                    page = client.list("w", limit=1000, after=after)
                except RaftClientError:
                    return None
                found |= {item.key for item in page.keys}
                if not page.more:
                    return found
                after = page.keys[-1].key


@contextmanager
def clusters(place: Place, namespace: str) -> Iterator[Callable[[str], Cluster]]:
    """Makes handles of clusters; those that are still there are deleted in the end."""
    made: list[Cluster] = []
    with tempfile.TemporaryDirectory(prefix="raft-kube-") as home:

        def make(name: str) -> Cluster:
            made.append(Cluster(place, namespace, name, Path(home)))
            return made[-1]

        try:
            yield make
        finally:
            for cluster in made:
                cluster.delete()
