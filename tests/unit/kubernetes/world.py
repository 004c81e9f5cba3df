"""A Kubernetes of one cluster in memory: the API server's objects with versions and preconditions,
the controllers and kubelets that act on them, nodes that fail. It judges what the operator does.

Every call of the operator stops once before it takes effect, so that whoever drives it can cut it
off there, or have somebody else act in between.
"""

from __future__ import annotations

import datetime
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import msgspec

from raft_operator.kube import Conflict, Kind, KubeError, Object, kind_of
from raft_operator.names import GROUP, KIND, VERSION, ClusterKey
from raft_operator.resources import hashed_template
from raft_operator.spec import read_spec
from raft_operator.times import text_of
from tests.unit.kubernetes.raft_model import BrokenRuleError, Process, Raft, Volume

KEY = ClusterKey("space", "kv")
BAD_IMAGE = "broken:1"
_START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def _copy(found: Any) -> Any:
    """As it would come over the wire."""
    return msgspec.json.decode(msgspec.json.encode(found))


class Stop:
    """One point at which an operator can be cut off."""

    def __await__(self) -> Generator[None, None, None]:
        yield


@dataclass
class Node:
    address: str
    is_ready: bool = True
    since: datetime.datetime = _START


class World:
    """`seconds` is the time; `judge`: whether acts of the operator are judged."""

    def __init__(self, spec: dict[str, Any], node_count: int = 6) -> None:
        self.seconds = 0.0
        self.raft = Raft()
        self.nodes = {f"n{n}": Node(f"192.0.2.{n + 1}") for n in range(node_count)}
        self.objects: dict[tuple[str, str], Object] = {}
        self.volumes: dict[str, Volume] = {}  # by uid of the claim
        self.homes: dict[str, str] = {}  # the node that a claim is bound to
        self.calls: set[tuple[str, str, str]] = set()
        self._version = 0
        resource = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KIND,
            "metadata": {"name": KEY.name, "namespace": KEY.namespace, "generation": 1},
            "spec": {"image": "agent:1", **spec},
        }
        self._store("raftclusters", resource)

    # --- objects

    def clock(self) -> datetime.datetime:
        return _START + datetime.timedelta(seconds=self.seconds)

    def _next_version(self) -> str:
        self._version += 1
        return str(self._version)

    def _store(self, plural: str, found: Object) -> Object:
        metadata = found["metadata"]
        metadata.setdefault("uid", f"uid-{self._next_version()}")
        metadata.setdefault("creationTimestamp", text_of(self.clock()))
        metadata["resourceVersion"] = self._next_version()
        self.objects[plural, metadata["name"]] = found
        return found

    def find(self, plural: str, name: str) -> Object | None:
        return self.objects.get((plural, name))

    def all(self, plural: str) -> list[Object]:
        return [item for (kind, _), item in sorted(self.objects.items()) if kind == plural]

    @property
    def resource(self) -> Object:
        return self.objects["raftclusters", KEY.name]

    def change_spec(self, **fields: Any) -> None:
        resource = self.resource
        if {**resource["spec"], **fields} != resource["spec"]:
            resource["spec"].update(fields)
            resource["metadata"]["generation"] += 1
            self._store("raftclusters", resource)

    # --- controllers, scheduler and kubelets

    def tick(self, seconds: float = 1.0) -> None:
        """What happens by itself in a while."""
        self.seconds += seconds
        self._run_stateful_set()
        self._collect()
        self._schedule()
        self._run_pods()
        self.raft.catch_up()

    def _run_stateful_set(self) -> None:
        found = self.find("statefulsets", KEY.name)
        if found is None:
            return
        count = found["spec"]["replicas"]
        for ordinal in range(count):
            if self.find("pods", KEY.pod(ordinal)) is not None:
                continue
            claim = KEY.volume_claim(ordinal)
            if self.find("persistentvolumeclaims", claim) is None:
                labels = {"labels": KEY.selector()}
                made = self._store(
                    "persistentvolumeclaims", {"metadata": {"name": claim, **labels}}
                )
                self.volumes[made["metadata"]["uid"]] = self.raft.make_volume()
            template = _copy(found["spec"]["template"])
            template["metadata"]["name"] = KEY.pod(ordinal)
            self._store("pods", {**template, "status": {}})
            self._touch_stateful_set()
        for pod in self.all("pods"):
            ordinal = KEY.ordinal(pod["metadata"]["name"])
            if ordinal is not None and ordinal >= count:
                self._delete_pod(pod)

    def _touch_stateful_set(self) -> None:
        """Its status changes with its pods."""
        found = self.find("statefulsets", KEY.name)
        if found is not None:
            self._store("statefulsets", found)

    def _delete_pod(self, pod: Object, grace_s: int | None = None) -> None:
        if grace_s == 0:
            self._end_pod(pod)
        elif "deletionTimestamp" not in pod["metadata"]:
            pod["metadata"]["deletionTimestamp"] = text_of(self.clock())
            self._store("pods", pod)
            # The agent ends soon; what counts is that it is on its way.
            self._stop_agent(pod)
            self._touch_stateful_set()

    def _stop_agent(self, pod: Object) -> None:
        address = pod["status"].get("podIP")
        process = self.raft.processes.get(f"{address}:5555")
        if process is not None and process.name == pod["metadata"]["name"]:
            self.raft.stop(process.address)

    def _end_pod(self, pod: Object) -> None:
        self._stop_agent(pod)
        self.objects.pop(("pods", pod["metadata"]["name"]), None)
        self._touch_stateful_set()

    def _collect(self) -> None:
        """Pods of nodes that are there no more, pods that have ended, claims that nobody uses."""
        for pod in self.all("pods"):
            node = pod["spec"].get("nodeName")
            known = self.nodes.get(node) if node else None
            is_stopping = "deletionTimestamp" in pod["metadata"]
            if (node and known is None) or (is_stopping and (known is None or known.is_ready)):
                self._end_pod(pod)
        used = {
            KEY.volume_claim(KEY.ordinal(pod["metadata"]["name"]) or 0)
            for pod in self.all("pods")
            if pod["spec"].get("nodeName")
        }
        for claim in self.all("persistentvolumeclaims"):
            metadata = claim["metadata"]
            if "deletionTimestamp" in metadata and metadata["name"] not in used:
                self._drop_claim(claim)

    def _drop_claim(self, claim: Object) -> None:
        metadata = claim["metadata"]
        self.objects.pop(("persistentvolumeclaims", metadata["name"]), None)
        self.volumes.pop(metadata["uid"], None)
        self.homes.pop(metadata["uid"], None)

    def claim_of(self, pod: Object) -> Object | None:
        ordinal = KEY.ordinal(pod["metadata"]["name"]) or 0
        return self.find("persistentvolumeclaims", KEY.volume_claim(ordinal))

    def _schedule(self) -> None:
        for pod in self.all("pods"):
            if pod["spec"].get("nodeName") or "deletionTimestamp" in pod["metadata"]:
                continue
            if not pod["status"]:
                waits = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
                waits["lastTransitionTime"] = text_of(self.clock())
                pod["status"] = {"conditions": [waits]}
            claim = self.claim_of(pod)
            if claim is None or "deletionTimestamp" in claim["metadata"]:
                continue
            uid = claim["metadata"]["uid"]
            taken = {other["spec"].get("nodeName") for other in self.all("pods")}
            free = [
                name for name, node in self.nodes.items() if node.is_ready and name not in taken
            ]
            home = self.homes.get(uid)
            if home is not None:
                free = [name for name in free if name == home]
            if free:
                pod["spec"]["nodeName"] = self.homes[uid] = free[0]
                pod["status"] = {}
                # As for a volume that is made where its pod goes.
                noted = claim["metadata"].setdefault("annotations", {})
                noted.setdefault("volume.kubernetes.io/selected-node", free[0])
                self._store("pods", pod)

    def _run_pods(self) -> None:
        for pod in self.all("pods"):
            node = self.nodes.get(pod["spec"].get("nodeName") or "")
            if node is None or not node.is_ready or "deletionTimestamp" in pod["metadata"]:
                continue
            address, name = f"{node.address}:5555", pod["metadata"]["name"]
            if address in self.raft.processes:
                continue
            image = pod["spec"]["containers"][0]["image"]
            if image == BAD_IMAGE:
                waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
                statuses = [{"state": {"waiting": waiting}, "restartCount": 0}]
                pod["status"] = {"podIP": node.address, "containerStatuses": statuses}
                continue
            claim = self.claim_of(pod)
            config = self.find("configmaps", KEY.config_map)
            if claim is None or config is None:
                continue
            founds = "bootstrap = true" in config["data"][f"{name}.toml"]
            volume = self.volumes[claim["metadata"]["uid"]]
            self.raft.start(Process(name, address, volume), founds=founds)
            ready = [{"type": "Ready", "status": "True"}]
            running = [{"state": {"running": {}}, "restartCount": 0}]
            pod["status"] = {
                "podIP": node.address,
                "conditions": ready,
                "containerStatuses": running,
            }
            self._store("pods", pod)
            self._touch_stateful_set()

    # --- faults

    def fail_node(self, name: str) -> None:
        node = self.nodes[name]
        if node.is_ready:
            node.is_ready, node.since = False, self.clock()
            self.raft.stop(f"{node.address}:5555")

    def mend_node(self, name: str) -> None:
        node = self.nodes[name]
        if not node.is_ready:
            node.is_ready, node.since = True, self.clock()

    def lose_node(self, name: str) -> None:
        """For good, with the volumes on it."""
        node = self.nodes.pop(name)
        self.raft.stop(f"{node.address}:5555")

    def lost_by(self, node: str) -> int:
        """How many voters would be gone for good with this node."""
        gone = {self.volumes[uid].id for uid, home in self.homes.items() if home == node}
        return sum(voter.id in gone for voter in self.raft.voters())

    def intact_voters(self) -> int:
        """Voters whose volume is on a node that is there."""
        there = {
            self.volumes[uid].id
            for uid, home in self.homes.items()
            if home in self.nodes and uid in self.volumes
        }
        return sum(voter.id in there for voter in self.raft.voters())

    def kill_agent(self, name: str) -> None:
        """The container ends; the kubelet starts it again."""
        for process in list(self.raft.processes.values()):
            if process.name == name:
                self.raft.stop(process.address)

    def kill_pod(self, name: str) -> None:
        pod = self.find("pods", name)
        if pod is not None:
            self._delete_pod(pod)

    # --- whether all is as it should be

    def differences(self) -> list[str]:
        """What keeps the cluster from being as the spec says."""
        spec = read_spec(KEY.name, self.resource["spec"])
        wanted = {KEY.pod(ordinal) for ordinal in range(spec.replicas)}
        annotations = hashed_template(KEY, spec)["metadata"]["annotations"]
        voters = {voter.name for voter in self.raft.voters() if self.raft.running(voter.id)}
        found = []
        if voters != wanted:
            found.append(f"healthy voters are {sorted(voters)}")
        if {entry.name for entry in self.raft.members.values()} != wanted:
            found.append(f"members are {sorted(e.name for e in self.raft.members.values())}")
        if {pod["metadata"]["name"] for pod in self.all("pods")} != wanted:
            found.append(f"pods are {[pod['metadata']['name'] for pod in self.all('pods')]}")
        for pod in self.all("pods"):
            if not annotations.items() <= pod["metadata"]["annotations"].items():
                found.append(f"{pod['metadata']['name']} is outdated")
        claims = {claim["metadata"]["name"] for claim in self.all("persistentvolumeclaims")}
        if claims != {KEY.volume_claim(ordinal) for ordinal in range(spec.replicas)}:
            found.append(f"claims are {sorted(claims)}")
        return found


class WorldKube:
    """The API server, for an operator whose acts are judged."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def _stop(self, verb: str, kind: Kind, subresource: str = "") -> None:
        suffix = f"/{subresource}" if subresource else ""
        self._world.calls.add((verb, kind.group, kind.plural + suffix))
        await Stop()

    async def get(self, kind: Kind, _namespace: str, name: str) -> Object | None:
        await self._stop("get", kind)
        found: Object | None = _copy(self._world.find(kind.plural, name))
        return found

    async def list(self, kind: Kind, _namespace: str = "", _selector: str = "") -> list[Object]:
        await self._stop("list", kind)
        if kind.plural == "nodes":
            return [self._node(name, node) for name, node in self._world.nodes.items()]
        found: list[Object] = _copy(self._world.all(kind.plural))
        return found

    @staticmethod
    def _node(name: str, node: Node) -> Object:
        state = "True" if node.is_ready else "Unknown"
        ready = {"type": "Ready", "status": state, "lastTransitionTime": text_of(node.since)}
        return {"metadata": {"name": name}, "status": {"conditions": [ready]}}

    async def create(self, kind: Kind, _namespace: str, wanted: Object) -> Object:
        await self._stop("create", kind)
        if kind.plural == "events":
            return wanted
        if self._world.find(kind.plural, wanted["metadata"]["name"]) is not None:
            raise Conflict("it is there already", 409)
        return self._world._store(kind.plural, _copy(wanted))

    async def put(self, wanted: Object, found: Object | None) -> Object:
        kind = kind_of(wanted)
        if found is None:
            return await self.create(kind, KEY.namespace, wanted)
        await self._stop("update", kind)
        stored = self._check(kind, wanted["metadata"]["name"], found["metadata"])
        if kind.plural == "statefulsets":
            self._judge_pods(wanted["spec"]["replicas"])
        uid = {"uid": stored["metadata"]["uid"]}
        merged = {**_copy(wanted), "metadata": {**wanted["metadata"], **uid}}
        return self._world._store(kind.plural, merged)

    def _check(self, kind: Kind, name: str, expected: Object) -> Object:
        stored = self._world.find(kind.plural, name)
        if stored is None:
            raise KubeError("not found", 404)
        for part in ("resourceVersion", "uid"):
            if expected.get(part) not in (None, "", stored["metadata"][part]):
                raise Conflict(f"another {part}", 409)
        return stored

    async def patch(
        self, kind: Kind, _namespace: str, name: str, changes: Object, subresource: str = ""
    ) -> Object:
        await self._stop("patch", kind, subresource)
        stored = self._check(kind, name, changes.get("metadata") or {})
        metadata = {
            part: value
            for part, value in (changes.get("metadata") or {}).items()
            if part not in ("resourceVersion", "uid")
        }
        _merge(stored, {**changes, "metadata": metadata})
        written: Object = _copy(self._world._store(kind.plural, stored))
        return written

    async def delete(
        self, kind: Kind, _namespace: str, name: str, uid: str = "", grace_s: int | None = None
    ) -> None:
        await self._stop("delete", kind)
        world = self._world
        try:
            stored = self._check(kind, name, {"uid": uid})
        except Conflict:
            raise
        except KubeError:
            return
        if kind.plural == "pods":
            self._judge_stop(stored)
            world._delete_pod(stored, grace_s)
        elif kind.plural == "persistentvolumeclaims":
            self._judge_volume(stored)
            stored["metadata"]["deletionTimestamp"] = text_of(world.clock())
        else:
            del world.objects[kind.plural, name]

    def now(self) -> datetime.datetime:
        return self._world.clock()

    async def has_version(self, _api_version: str) -> bool:
        return True

    # --- what must never be

    def _judge_stop(self, pod: Object) -> None:
        """A pod is stopped only where a quorum is left, or there was none to spare."""
        raft, name = self._world.raft, pod["metadata"]["name"]
        before = raft.has_quorum()
        process = next((p for p in raft.processes.values() if p.name == name), None)
        if process is None:
            return
        member = raft.members.get(process.volume.id)
        if member is None or member.role != "voter":
            return
        if not before:
            raise BrokenRuleError(f"{name} is stopped while there is no quorum")
        if len(raft.voters()) > 2 and raft.healthy_voters() - 1 <= len(raft.voters()) // 2:
            raise BrokenRuleError(f"stopping {name} takes the quorum")

    def _judge_pods(self, count: int) -> None:
        for member in self._world.raft.members.values():
            if (KEY.ordinal(member.name) or 0) >= count:
                raise BrokenRuleError(f"the pod of the member {member.name} is scaled away")

    def _judge_volume(self, claim: Object) -> None:
        volume = self._world.volumes[claim["metadata"]["uid"]]
        if volume.id in self._world.raft.members:
            raise BrokenRuleError(f"the volume of a member is deleted: {claim['metadata']['name']}")


def _merge(stored: Object, changes: Object) -> None:
    """RFC 7386."""
    for name, value in changes.items():
        if value is None:
            stored.pop(name, None)
        elif isinstance(value, dict):
            inner = stored.setdefault(name, {})
            _merge(inner, value)
        else:
            stored[name] = _copy(value)
