"""What a RaftCluster asks for. The CRD says the same to the API server; a test holds the two equal.

Everything is checked here a second time: an API server before 1.25 drops the rules in CEL without a
word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import msgspec

MAX_REPLICAS = 9
_MAX_NAME = 48
_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Milliseconds = Annotated[int, msgspec.Meta(ge=1, le=600_000)]


class _Part(msgspec.Struct, frozen=True, rename="camel"):
    pass


class SecretName(_Part, frozen=True):
    name: str


class Ports(_Part, frozen=True):
    raft: Port = 5555
    http: Port = 9555


class Timing(_Part, frozen=True):
    heartbeat_interval_ms: Annotated[int, msgspec.Meta(ge=1, le=60_000)] = 50
    election_timeout_min_ms: Annotated[int, msgspec.Meta(ge=2, le=600_000)] = 150
    election_timeout_max_ms: Annotated[int, msgspec.Meta(ge=3, le=600_000)] = 300


class Storage(_Part, frozen=True):
    size: Annotated[
        str, msgspec.Meta(pattern=r"^[1-9][0-9]*(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$", max_length=32)
    ] = "2Gi"
    class_name: Annotated[str, msgspec.Meta(max_length=253)] | None = None
    when_scaled: Literal["Delete", "Retain"] = "Delete"
    when_deleted: Literal["Delete", "Retain"] = "Retain"


class Network(_Part, frozen=True):
    host_network: bool = True
    interface: Annotated[str, msgspec.Meta(min_length=1, max_length=15)] = "auto"
    http_on_loopback: bool = False


class Export(_Part, frozen=True):
    prefix: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    map: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
    key: Annotated[str, msgspec.Meta(max_length=32)]
    value: Annotated[str, msgspec.Meta(max_length=32)]
    kind: Literal["hash", "lpm_trie"] = "hash"
    max_entries: Annotated[int, msgspec.Meta(ge=1)] = 10_000
    with_revision: bool = False


class Ebpf(_Part, frozen=True):
    enabled: bool = False
    sys_resource: bool = False
    firewall: Literal["off", "audit", "enforce"] = "off"
    firewall_allow: Annotated[
        tuple[Annotated[str, msgspec.Meta(max_length=64)], ...], msgspec.Meta(max_length=64)
    ] = ()
    fresh_ms: Milliseconds = 1000
    exports: Annotated[tuple[Export, ...], msgspec.Meta(max_length=16)] = ()


class Tls(_Part, frozen=True):
    authority_secret: Annotated[str, msgspec.Meta(max_length=253)] = ""
    certificate_days: Annotated[int, msgspec.Meta(ge=1, le=3650)] = 90
    clear_headers: bool = True


class Placement(_Part, frozen=True):
    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, Any], ...] = ()
    node_affinity: dict[str, Any] | None = None
    topology_spread_constraints: tuple[dict[str, Any], ...] = ()
    priority_class_name: Annotated[str, msgspec.Meta(max_length=253)] = ""
    replace_after_seconds: Annotated[int, msgspec.Meta(ge=0, le=604_800)] = 300


class Budget(_Part, frozen=True):
    enabled: bool = True


class Spec(_Part, frozen=True):
    """`spec` of a RaftCluster, with its defaults. docs/kubernetes.md says what the fields mean."""

    image: Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
    replicas: Annotated[int, msgspec.Meta(ge=1, le=MAX_REPLICAS)] = 3
    allow_even: bool = False
    version: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]*$", max_length=128)] = ""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: Annotated[tuple[SecretName, ...], msgspec.Meta(max_length=16)] = ()
    ports: Ports = Ports()
    timing: Timing = Timing()
    storage: Storage = Storage()
    network: Network = Network()
    ebpf: Ebpf = Ebpf()
    tls: Tls = Tls()
    placement: Placement = Placement()
    resources: dict[str, Any] = {}
    log_level: Annotated[str, msgspec.Meta(max_length=256)] = "info"
    pod_annotations: dict[str, str] = {}
    pdb: Budget = Budget()
    paused: bool = False
    progress_deadline_seconds: Annotated[int, msgspec.Meta(ge=30, le=604_800)] = 600

    @property
    def full_image(self) -> str:
        """The image with its tag."""
        return f"{self.image}:{self.version}" if self.version else self.image


class InvalidSpec(ValueError):  # noqa: N818
    """The spec can't be worked with; the text says why and what would be right."""


def read_spec(name: str, spec: Mapping[str, Any]) -> Spec:
    """The spec of the cluster `name`. Raises InvalidSpec."""
    try:
        found = msgspec.convert(spec, Spec, strict=True)
    except msgspec.ValidationError as error:
        raise InvalidSpec(f"spec: {error}") from None
    problems = [*_problems_of_name(name), *_problems(found)]
    if problems:
        raise InvalidSpec("; ".join(problems))
    return found


def _problems_of_name(name: str) -> Iterator[str]:
    if len(name) > _MAX_NAME:
        yield (
            "the name is too long: members are called NAME-0, NAME-1, and so on; at most "
            f"{_MAX_NAME} characters"
        )
    if not _NAME.fullmatch(name):
        yield (
            "the name has to start with a letter and hold only a-z, 0-9 and -: services are "
            "called after it"
        )


def _problems(spec: Spec) -> Iterator[str]:
    if spec.replicas % 2 == 0 and not spec.allow_even:
        yield (
            "an even number of members bears no more losses than one member less: choose an odd "
            "number, or set allowEven"
        )
    timing = spec.timing
    if timing.election_timeout_min_ms <= timing.heartbeat_interval_ms:
        yield "electionTimeoutMinMs has to be greater than heartbeatIntervalMs"
    if timing.election_timeout_max_ms <= timing.election_timeout_min_ms:
        yield "electionTimeoutMaxMs has to be greater than electionTimeoutMinMs"
    if spec.ports.raft == spec.ports.http:
        yield "ports.raft and ports.http need different ports"
    if spec.version and ("@" in spec.image or ":" in spec.image.rpartition("/")[2]):
        yield "image has a tag or digest already: leave version empty"
