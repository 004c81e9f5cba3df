"""The chart has Prometheus scrape what the operator makes, under the names that the rules go by."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from raft_operator import resources
from raft_operator.names import ClusterKey
from raft_operator.spec import read_spec
from tests.unit.chart.rendering import ROOT, only, render

ON = {
    "serviceMonitor": {"enabled": True},
    "alerts": {"enabled": True},
    "dashboard": {"enabled": True},
}
RULES = yaml.safe_load((ROOT / "docs" / "monitoring" / "alerts.yaml").read_text())
SERVICES = resources.services(
    resources.Owner(ClusterKey("shop", "orders"), "a-uid"),
    read_spec("orders", {"image": "agent:1"}),
)


def relabelled(labels: dict[str, str], rules: list[dict[str, Any]]) -> dict[str, str]:
    """What Prometheus makes of a target's labels by rules of the kind `replace`."""
    found = dict(labels)
    for rule in rules:
        assert rule.keys() <= {"sourceLabels", "separator", "targetLabel", "replacement"}
        value = rule.get("separator", ";").join(found[label] for label in rule["sourceLabels"])
        found[rule["targetLabel"]] = rule.get("replacement", "$1").replace("$1", value)
    return found


def test_the_services_of_the_operators_clusters_are_scraped_each_pod_once() -> None:
    spec = only(render(ON), "ServiceMonitor")["spec"]
    wanted = spec["selector"]["matchLabels"].items()
    (endpoint,) = spec["endpoints"]
    scraped = [
        service
        for service in SERVICES
        if wanted <= service["metadata"]["labels"].items()
        and endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
    ]
    assert [service["metadata"]["name"] for service in scraped] == ["orders-peers"]
    assert endpoint["path"] == "/metrics"


def test_each_cluster_is_a_job_that_the_rules_know() -> None:
    (endpoint,) = only(render(ON), "ServiceMonitor")["spec"]["endpoints"]
    (peers,) = (one for one in SERVICES if one["metadata"]["name"] == "orders-peers")
    labels = {
        f"__meta_kubernetes_service_label_{re.sub('[^a-zA-Z0-9_]', '_', name)}": value
        for name, value in peers["metadata"]["labels"].items()
    }
    labels |= {
        "__meta_kubernetes_namespace": "shop",
        "__meta_kubernetes_pod_name": "orders-1",
    }
    found = relabelled(labels, endpoint["relabelings"])
    assert (found["job"], found["instance"]) == ("raft/shop/orders", "orders-1")
    matchers = [
        matcher
        for group in RULES["groups"]
        for rule in group["rules"]
        for matcher in re.findall(r'job=~"([^"]*)"', rule["expr"])
    ]
    assert matchers
    for matcher in matchers:
        assert re.fullmatch(matcher, found["job"])
        assert re.fullmatch(matcher, "raft")
        assert not re.fullmatch(matcher, "rafts")
    assert not [
        rule for group in RULES["groups"] for rule in group["rules"] if 'job="' in str(rule)
    ]


@pytest.mark.parametrize(
    ("namespaces", "selector"),
    [([], {"any": True}), (["a", "b"], {"matchNames": ["a", "b"]})],
)
def test_scraped_is_what_is_watched(namespaces: list[str], selector: dict[str, Any]) -> None:
    values = ON | {"watch": {"namespaces": namespaces}}
    assert only(render(values), "ServiceMonitor")["spec"]["namespaceSelector"] == selector


def test_the_rules_are_those_of_the_documents() -> None:
    assert only(render(ON), "PrometheusRule")["spec"] == RULES


def test_rules_can_be_left_out() -> None:
    values = ON | {"alerts": {"enabled": True, "without": ["RaftFsyncSlow", "RaftCommitSlow"]}}
    left = only(render(values), "PrometheusRule")["spec"]["groups"][0]["rules"]
    names = {rule["alert"] for rule in RULES["groups"][0]["rules"]}
    assert {rule["alert"] for rule in left} == names - {"RaftFsyncSlow", "RaftCommitSlow"}


def test_the_dashboard_is_the_one_of_the_documents() -> None:
    config_map = only(render(ON), "ConfigMap")
    source = ROOT / "docs" / "monitoring" / "grafana-dashboard.json"
    assert json.loads(config_map["data"]["raft.json"]) == json.loads(source.read_text())
    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_nothing_of_other_projects_is_made_unless_asked_for() -> None:
    versions = {document["apiVersion"] for document in render()}
    assert "monitoring.coreos.com/v1" not in versions
