"""Whatever values are chosen, Kubernetes takes what the chart makes, and it fits together."""

from __future__ import annotations

import ast
import functools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

import raft_agent
from raft_operator import main
from tests.unit.chart.matrix import MATRIX, VARIATIONS
from tests.unit.chart.rendering import (
    CHART,
    NOTES,
    Document,
    helm,
    is_test,
    only,
    render,
    render_files,
)

VERSIONS = ("1.25", kubernetes_validate.latest_version())
# Resources of other projects, of which kubernetes-validate knows nothing.
FOREIGN = {"monitoring.coreos.com/v1"}
CLUSTER_WIDE = {"CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"}


@functools.cache
def validate(document: str, version: str) -> None:
    """Once for each different document, since most values change few of them."""
    kubernetes_validate.validate(json.loads(document), version, strict=True)


def containers(document: Document) -> list[Document]:
    pod = document["spec"]["template"] if document["kind"] == "Deployment" else document
    found: list[Document] = pod["spec"]["containers"]
    return found


@pytest.mark.parametrize("name", MATRIX)
def test_kubernetes_takes_what_the_chart_makes(name: str) -> None:
    for document in render(MATRIX[name]):
        if document["apiVersion"] in FOREIGN:
            continue
        for version in VERSIONS:
            validate(json.dumps(document), version)


@pytest.mark.parametrize("name", MATRIX)
def test_no_object_is_made_twice_and_each_has_its_namespace(name: str) -> None:
    documents = render(MATRIX[name], namespace="here")
    identities = [
        (one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"])
        for one in documents
    ]
    assert len(set(identities)) == len(identities)
    for kind, namespace, _ in identities:
        assert (namespace is None) == (kind in CLUSTER_WIDE)


@pytest.mark.parametrize("name", MATRIX)
def test_labels_that_people_add_do_not_replace_the_charts_own(name: str) -> None:
    for document in render(MATRIX[name], release="mine"):
        labels = document["metadata"]["labels"]
        expected = "raft-operator-test" if is_test(document) else "raft-operator"
        assert labels["app.kubernetes.io/name"] == expected
        assert labels["app.kubernetes.io/instance"] == "mine"
        assert labels["helm.sh/chart"] == f"raft-{raft_agent.__version__}"
        if "commonLabels" in MATRIX[name]:
            assert labels["example.com/team"] == "storage"


@pytest.mark.parametrize("name", MATRIX)
def test_the_deployment_finds_its_own_pods_and_no_others(name: str) -> None:
    documents = render(MATRIX[name])
    spec = only(documents, "Deployment")["spec"]
    wanted = spec["selector"]["matchLabels"].items()
    assert wanted <= spec["template"]["metadata"]["labels"].items()
    (test,) = (one for one in documents if one["kind"] == "Pod")
    assert not wanted <= test["metadata"]["labels"].items()
    policies = [one for one in documents if one["kind"] == "NetworkPolicy"]
    for policy in policies:
        assert policy["spec"]["podSelector"]["matchLabels"].items() == wanted


@pytest.mark.parametrize("name", VARIATIONS)
def test_there_is_one_operator_at_a_time(name: str) -> None:
    spec = only(render(VARIATIONS[name]), "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_the_operator_runs_with_no_right_on_its_node() -> None:
    documents = render()
    pods = [only(documents, "Deployment")["spec"]["template"]]
    pods += [one for one in documents if one["kind"] == "Pod"]
    assert len(pods) == 2
    for pod in pods:
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        (container,) = spec["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not [one for one in spec.get("volumes", []) if "hostPath" in one]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({}, f"raft-operator:{raft_agent.__version__}"),
        ({"repository": "r.example.com:5000/a/b", "tag": "7"}, "r.example.com:5000/a/b:7"),
        ({"tag": "7", "digest": f"sha256:{'ab' * 32}"}, f"raft-operator@sha256:{'ab' * 32}"),
    ],
)
def test_a_digest_goes_before_a_tag_and_a_tag_before_the_version(
    image: dict[str, str], expected: str
) -> None:
    for document in render({"image": image}):
        if document["kind"] in {"Deployment", "Pod"}:
            assert [one["image"] for one in containers(document)] == [expected]


def test_the_operator_is_told_what_to_watch_and_how_to_log() -> None:
    values = {
        "watch": {"namespaces": ["b", "a"]},
        "log": {"level": "debug", "format": "text"},
        "health": {"port": 9000},
    }
    (container,) = containers(only(render(values), "Deployment"))
    assert container["command"] == ["raft-operator"]
    assert container["args"] == [
        "--namespace=b",
        "--namespace=a",
        "--liveness=0.0.0.0:9000",
        "--log-level=debug",
        "--log-format=text",
    ]
    read = main.parser().parse_args(container["args"])
    assert (read.namespace, read.log_level) == (["b", "a"], "debug")
    (port,) = container["ports"]
    assert port == {"name": "health", "containerPort": 9000}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": "/healthz", "port": "health"}


def test_the_definition_stays_when_the_release_goes_unless_told_otherwise() -> None:
    kept = only(render(), "CustomResourceDefinition")["metadata"]["annotations"]
    assert kept == {"helm.sh/resource-policy": "keep"}
    gone = only(render({"crds": {"keep": False}}), "CustomResourceDefinition")["metadata"]
    assert not gone.get("annotations")
    kinds = {one["kind"] for one in render({"crds": {"enabled": False}})}
    assert "CustomResourceDefinition" not in kinds


def test_the_definition_is_the_one_of_the_folder_of_definitions() -> None:
    (source,) = CHART.glob("crd-bases/*.yaml")
    rendered = only(render(), "CustomResourceDefinition")
    assert rendered["spec"] == yaml.safe_load(source.read_text())["spec"]


@pytest.mark.parametrize(("version", "are_there"), [("v1.24.17", False), ("v1.25.0", True)])
def test_the_definition_has_rules_where_the_api_server_knows_them(
    version: str, are_there: bool, tmp_path: Path
) -> None:
    """Rendered without a cluster, a chart sees the version that Helm was made with."""
    chart = shutil.copytree(CHART, tmp_path / "raft")
    template = chart / "templates" / "crds.yaml"
    asked = "$.Capabilities.KubeVersion.Version"
    assert template.read_text().count(asked) == 1
    template.write_text(template.read_text().replace(asked, f'"{version}"'))
    definition = only(render(chart=chart), "CustomResourceDefinition")
    (source,) = CHART.glob("crd-bases/*.yaml")
    assert ("x-kubernetes-validations" in str(definition)) is are_there
    expected = without_rules(yaml.safe_load(source.read_text())["spec"])
    assert without_rules(definition["spec"]) == expected


def without_rules(part: Any) -> Any:
    if isinstance(part, dict):
        kept = {key: value for key, value in part.items() if key != "x-kubernetes-validations"}
        return {key: without_rules(value) for key, value in kept.items()}
    return [without_rules(one) for one in part] if isinstance(part, list) else part


def test_the_notes_hold_commands_that_can_be_pasted() -> None:
    notes = render_files({"watch": {"namespaces": ["shop"]}}, release="mine")[NOTES]
    lines = notes.splitlines()
    commands = [line for line in lines if line.startswith("kubectl ")]
    assert len(commands) >= 5
    assert all(
        "--namespace shop" in line or "deployment/mine-operator" in line for line in commands
    )
    # A here-document ends only with its word at the beginning of a line.
    begin, end = lines.index(next(line for line in lines if "<<'END'" in line)), lines.index("END")
    cluster = yaml.safe_load("\n".join(lines[begin + 1 : end]))
    sample = yaml.safe_load((CHART / "samples" / "three-members.yaml").read_text())
    assert cluster == sample


def test_what_helm_test_runs_is_python_and_asks_for_what_its_role_allows() -> None:
    documents = [one for one in render({"watch": {"namespaces": ["shop"]}}) if is_test(one)]
    (pod,) = (one for one in documents if one["kind"] == "Pod")
    (container,) = pod["spec"]["containers"]
    (script,) = container["args"]
    ast.parse(script)
    given = {one["name"]: one["value"] for one in container["env"]}
    assert set(re.findall(r'environ\["([A-Z]+)"\]', script)) == given.keys()
    assert given["NAMESPACE"] == "raft-system"
    (role,) = (one for one in documents if one["kind"] == "Role")
    assert role["rules"][0]["resourceNames"] == [given["DEPLOYMENT"]]
    assert "secrets" not in str(role["rules"])


def test_helm_has_no_complaint() -> None:
    report = helm.lint(CHART, strict=True)
    complaints: list[dict[str, Any]] = [
        one for one in report["messages"] if one["error"] != "icon is recommended"
    ]
    assert (report["errors"], complaints) == ([], [])


def test_the_chart_is_of_the_version_of_the_distribution() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == raft_agent.__version__
