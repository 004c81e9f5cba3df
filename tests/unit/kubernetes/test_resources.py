"""What the operator asks Kubernetes for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from raft_agent.config import Config, load
from raft_operator import pods, resources
from raft_operator.names import APPLIED_ANNOTATION, TEMPLATE_ANNOTATION, ClusterKey
from raft_operator.spec import Spec, read_spec

KEY = ClusterKey("space", "kv")
OWNER = resources.Owner(KEY, "a-uid")
EXPORT = {"prefix": "fw/", "map": "deny", "key": "u32", "value": "u8"}


def spec(**fields: Any) -> Spec:
    return read_spec("kv", {"image": "agent:1", **fields})


def pod(wanted: Spec) -> dict[str, Any]:
    found: dict[str, Any] = resources.hashed_template(KEY, wanted)["spec"]
    return found


def container(wanted: Spec) -> dict[str, Any]:
    (found,) = pod(wanted)["containers"]
    assert isinstance(found, dict)
    return found


def written_out(text: str, variables: dict[str, str]) -> str:
    return re.sub(r"\$\((\w+)\)", lambda match: variables[match[1]], text)


def environment(wanted: Spec, name: str) -> dict[str, str]:
    """What the kubelet makes of it."""
    fields = {"metadata.name": name, "status.podIP": "192.0.2.7"}
    found: dict[str, str] = {}
    for variable in container(wanted)["env"]:
        source = variable.get("valueFrom", {})
        if "fieldRef" in source:
            value = fields[source["fieldRef"]["fieldPath"]]
        else:
            value = written_out(variable["value"], found)
        found[variable["name"]] = value
    return found


@pytest.fixture
def agents_view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """How the agent in the pod reads what it is given."""

    def read(wanted: Spec, pod: str = "kv-1", *, bootstrap: bool = False) -> Config:
        config_map = resources.config_map(OWNER, wanted, bootstrap=bootstrap, cluster_id="")
        variables = environment(wanted, pod)
        option, path = container(wanted)["args"]
        assert option == "--config"
        file = tmp_path / Path(written_out(path, variables)).name
        file.write_text(config_map["data"][file.name])
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return load(file)

    return read


def test_the_agent_takes_what_the_pod_gives_it(agents_view: Any) -> None:
    config = agents_view(spec(logLevel="warning", timing={"heartbeatIntervalMs": 60}))
    assert config.server.node_id == "kv-1"
    assert config.server.listen_addr == "0.0.0.0:5555"
    assert config.advertise_address() == "192.0.2.7:5555"
    assert config.server.http_addr == "192.0.2.7:9555"
    assert config.server.log_level == "warning"
    assert config.timing.heartbeat_interval_ms == 60
    assert config.cluster.name == "kv"
    assert config.peers == ()
    assert config.ipc_socket == "/run/raft/kv-1.sock"
    assert config.tls.cert == "/etc/raft/tls/kv-1.pem"
    assert not config.ebpf.enabled


def test_the_agent_takes_the_kernel_part_and_its_exports(agents_view: Any) -> None:
    ebpf = {"enabled": True, "firewall": "audit", "firewallAllow": ["10.0.0.0/8"]}
    config = agents_view(spec(ebpf={**ebpf, "exports": [EXPORT]}))
    assert config.ebpf.enabled
    assert config.ebpf.interface == "auto"
    assert config.ebpf.firewall_allow == ("10.0.0.0/8",)
    assert config.ebpf.pin_dir == "/sys/fs/bpf/raft_space_kv-1"
    (export,) = config.exports
    assert (export.map, export.max_entries, export.kind) == ("deny", 10_000, "hash")


@pytest.mark.parametrize(
    ("pod", "bootstrap", "founds"),
    [("kv-0", True, True), ("kv-0", False, False), ("kv-1", True, False), ("kv-8", True, False)],
)
def test_only_the_seed_founds_a_cluster_and_only_until_there_is_one(
    agents_view: Any, pod: str, bootstrap: bool, founds: bool
) -> None:
    assert agents_view(spec(), pod, bootstrap=bootstrap).cluster.bootstrap is founds


def test_the_http_port_can_stay_on_the_node(agents_view: Any) -> None:
    wanted = spec(network={"httpOnLoopback": True})
    assert agents_view(wanted).server.http_addr == "127.0.0.1:9555"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container(wanted)[probe]["httpGet"]["host"] == "127.0.0.1"


def test_without_the_kernel_part_a_pod_has_no_rights() -> None:
    wanted = spec()
    assert pod(wanted)["securityContext"]["runAsNonRoot"]
    assert container(wanted)["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert not [volume for volume in pod(wanted)["volumes"] if "hostPath" in volume]


def test_the_kernel_part_takes_uid_0_and_three_capabilities() -> None:
    wanted = spec(ebpf={"enabled": True})
    assert pod(wanted)["securityContext"]["runAsUser"] == 0
    capabilities = container(wanted)["securityContext"]["capabilities"]
    assert capabilities == {"drop": ["ALL"], "add": ["BPF", "NET_ADMIN", "PERFMON"]}
    older = container(spec(ebpf={"enabled": True, "sysResource": True}))
    assert "SYS_RESOURCE" in older["securityContext"]["capabilities"]["add"]


def test_the_kernel_part_can_be_turned_on_and_off_over_the_same_files() -> None:
    contexts = [pod(spec(ebpf={"enabled": on}))["securityContext"] for on in (True, False)]
    assert {(found["fsGroup"], found["runAsGroup"]) for found in contexts} == {(10555, 10555)}
    assert all(found["fsGroupChangePolicy"] == "Always" for found in contexts)


@pytest.mark.parametrize("ebpf", [True, False])
def test_a_pod_can_change_nothing_of_its_image(ebpf: bool) -> None:
    wanted = spec(ebpf={"enabled": ebpf})
    security = container(wanted)["securityContext"]
    assert security["readOnlyRootFilesystem"]
    assert not security["allowPrivilegeEscalation"]
    assert not pod(wanted)["automountServiceAccountToken"]


def test_a_pod_is_on_its_nodes_network_and_says_which_ports_it_takes() -> None:
    wanted = spec(ports={"raft": 7000, "http": 7001})
    assert pod(wanted)["hostNetwork"]
    assert pod(wanted)["dnsPolicy"] == "ClusterFirstWithHostNet"
    assert [port["hostPort"] for port in container(wanted)["ports"]] == [7000, 7001]
    (apart,) = pod(wanted)["affinity"]["podAntiAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    assert apart["topologyKey"] == "kubernetes.io/hostname"
    assert apart["labelSelector"]["matchLabels"].items() <= KEY.labels().items()


def test_pods_can_have_a_network_of_their_own() -> None:
    wanted = spec(network={"hostNetwork": False})
    assert not pod(wanted)["hostNetwork"]
    assert all("hostPort" not in port for port in container(wanted)["ports"])


def test_a_stateful_set_replaces_no_pod_by_itself() -> None:
    body = resources.stateful_set(OWNER, spec(), 3)["spec"]
    assert body["updateStrategy"] == {"type": "OnDelete"}
    assert body["podManagementPolicy"] == "Parallel"
    assert body["replicas"] == 3
    assert body["selector"]["matchLabels"].items() <= body["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize(
    ("change", "is_another"),
    [
        ({"image": "agent:2"}, True),
        ({"timing": {"heartbeatIntervalMs": 60}}, True),
        ({"ebpf": {"enabled": True}}, True),
        ({"placement": {"priorityClassName": "high"}}, True),
        ({"replicas": 5}, False),
        ({"paused": True}, False),
        ({"placement": {"replaceAfterSeconds": 1}}, False),
    ],
)
def test_pods_are_outdated_when_what_they_run_is_another(
    change: dict[str, Any], is_another: bool
) -> None:
    before = resources.template_hash(KEY, spec())
    assert (resources.template_hash(KEY, spec(**change)) != before) is is_another


def test_founding_makes_no_pod_outdated() -> None:
    template = resources.stateful_set(OWNER, spec(), 1)["spec"]["template"]
    grown = resources.stateful_set(OWNER, spec(), 3)["spec"]["template"]
    assert template == grown
    hash_of_it = template["metadata"]["annotations"][TEMPLATE_ANNOTATION]
    assert hash_of_it == resources.template_hash(KEY, spec())


def test_an_object_is_written_again_only_when_something_else_is_asked_for() -> None:
    three, five = (resources.stateful_set(OWNER, spec(), number) for number in (3, 5))
    # The API server fills in much.
    stored = {**three, "status": {}, "spec": {**three["spec"], "revisionHistoryLimit": 10}}
    assert resources.is_as_applied(stored, three)
    assert not resources.is_as_applied(stored, five)
    assert not resources.is_as_applied(None, three)
    del stored["metadata"]["annotations"][APPLIED_ANNOTATION]
    assert not resources.is_as_applied(stored, resources.stateful_set(OWNER, spec(), 3))


@pytest.mark.parametrize(("voters", "kept"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 4)])
def test_a_drain_may_take_one_voter_where_one_can_be_spared(voters: int, kept: int) -> None:
    budget = resources.disruption_budget(OWNER, voters, "policy/v1")["spec"]
    assert budget["minAvailable"] == kept
    assert budget["selector"]["matchLabels"]["raft-ebpf.dev/role"] == "voter"


def test_pods_are_found_before_they_are_ready() -> None:
    peers, clients = resources.services(OWNER, spec())
    assert peers["spec"]["publishNotReadyAddresses"]
    assert peers["spec"]["clusterIP"] == "None"
    assert "publishNotReadyAddresses" not in clients["spec"]


@pytest.mark.parametrize(("is_hidden", "names"), [(False, ["raft", "http"]), (True, ["raft"])])
def test_no_port_is_offered_that_nobody_can_reach(is_hidden: bool, names: list[str]) -> None:
    wanted = spec(network={"httpOnLoopback": is_hidden})
    peers, _ = resources.services(OWNER, wanted)
    assert [port["name"] for port in peers["spec"]["ports"]] == names


def test_everything_goes_with_the_cluster_but_volumes() -> None:
    objects = [
        resources.config_map(OWNER, spec(), bootstrap=True, cluster_id=""),
        resources.stateful_set(OWNER, spec(), 3),
        *resources.services(OWNER, spec()),
        resources.disruption_budget(OWNER, 3, "policy/v1"),
        resources.secret(OWNER, "kv-certificates", {"ca.pem": b"x"}),
    ]
    for found in objects:
        (reference,) = found["metadata"]["ownerReferences"]
        assert reference["uid"] == "a-uid"
        assert reference["controller"]
    (claim,) = objects[1]["spec"]["volumeClaimTemplates"]
    assert "ownerReferences" not in claim["metadata"]


def test_a_secret_keeps_its_bytes() -> None:
    data = {"a.pem": b"\x00\xff", "b.pem": b"text"}
    assert resources.secret_data(resources.secret(OWNER, "s", data)) == data


@pytest.mark.parametrize(
    ("name", "ordinal"),
    [("kv-0", 0), ("kv-12", 12), ("kv-01", None), ("kv-x", None), ("kw-0", None), ("kv", None)],
)
def test_a_member_is_known_by_its_name(name: str, ordinal: int | None) -> None:
    assert KEY.ordinal(name) == ordinal


def test_a_file_of_the_pods_is_where_the_agent_looks() -> None:
    wanted = spec()
    mounts = {mount["name"]: mount["mountPath"] for mount in container(wanted)["volumeMounts"]}
    assert mounts["certificates"] == "/etc/raft/tls"
    assert f"{mounts['certificates']}/{pods.AUTHORITIES_FILE}" in resources.raft_toml(KEY, wanted)
    assert container(wanted)["args"][1].startswith(mounts["config"] + "/")
