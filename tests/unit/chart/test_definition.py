"""The samples are taken, mistakes are refused in words, and what can't change does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from raft_operator.names import ClusterKey
from raft_operator.resources import Owner, stateful_set
from raft_operator.spec import InvalidSpec, read_spec
from tests.unit.chart.api_server import broken_rules, cluster, complaints, rules
from tests.unit.kubernetes.crd import SCHEMA
from tools import chart_files

IMAGE = {"image": "agent:1"}
RULES = [rule for _, rule in rules(SCHEMA)]


@pytest.mark.parametrize("sample", chart_files.samples(), ids=lambda path: path.stem)
def test_a_sample_is_taken_by_the_api_server_and_by_the_operator(sample: Path) -> None:
    wanted = yaml.safe_load(sample.read_text())
    assert complaints(wanted) == []
    name = wanted["metadata"]["name"]
    spec = read_spec(name, wanted["spec"])
    made = stateful_set(Owner(ClusterKey("a", name), "a-uid"), spec, spec.replicas)
    assert made["spec"]["replicas"] == wanted["spec"]["replicas"]


# Each: what is wrong, and words of the complaint.
MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"replicas": 4}, "even number"),
    ({"replicas": 0}, "minimum"),
    ({"replicas": 11}, "maximum"),
    ({"replicas": "3"}, "not of type"),
    ({"image": ""}, "image"),
    ({"ports": {"raft": 9555}}, "different ports"),
    ({"ports": {"raft": 0}}, "minimum"),
    ({"timing": {"heartbeatIntervalMs": 150}}, "greater than heartbeatIntervalMs"),
    ({"timing": {"electionTimeoutMinMs": 300}}, "greater than electionTimeoutMinMs"),
    ({"storage": {"size": "big"}}, "does not match"),
    ({"storage": {"whenScaled": "Maybe"}}, "not one of"),
    ({"ebpf": {"firewall": "on"}}, "not one of"),
    ({"ebpf": {"exports": [{"prefix": "a/", "map": "Bad", "key": "u32", "value": "u8"}]}}, "match"),
    ({"ebpf": {"exports": [{"prefix": "a/"}]}}, "required"),
    ({"replica": 3}, ".spec.replica: unknown"),
    ({"storage": {"class": "fast"}}, ".spec.storage.class: unknown"),
]


@pytest.mark.parametrize(("change", "words"), MISTAKES)
def test_a_mistake_is_refused_in_words(change: dict[str, Any], words: str) -> None:
    assert any(words in one for one in complaints(cluster(IMAGE | change)))


def test_a_cluster_needs_an_image() -> None:
    assert any("'image' is a required" in one for one in complaints(cluster({})))


@pytest.mark.parametrize("name", ["7up", "a" * 49, "a-", "a.b"])
def test_a_name_that_services_can_not_have_is_refused(name: str) -> None:
    assert any("the name" in one for one in complaints(cluster(IMAGE, name)))


def test_names_up_to_the_limit_are_taken() -> None:
    for name in ("a", "a-0", "a" * 48):
        assert complaints(cluster(IMAGE, name)) == []


def test_an_even_number_is_taken_when_it_is_meant() -> None:
    assert complaints(cluster(IMAGE | {"replicas": 4, "allowEven": True})) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ports": {"raft": 5556}}, "ports can't be changed"),
        ({"storage": {"size": "3Gi"}}, "size and className can't be changed"),
        ({"storage": {"className": "fast"}}, "size and className can't be changed"),
        ({"network": {"hostNetwork": False}}, "hostNetwork can't be changed"),
        ({"tls": {"authoritySecret": "other"}}, "authoritySecret can't be changed"),
    ],
)
def test_what_can_not_change_is_refused_later_but_not_at_first(
    change: dict[str, Any], words: str
) -> None:
    assert complaints(cluster(IMAGE | change)) == []
    refused = complaints(cluster(IMAGE | change), cluster(IMAGE))
    assert any(words in one for one in refused)
    # What is filled in by default is no change.
    assert complaints(cluster(IMAGE | change), cluster(IMAGE | change)) == []


@pytest.mark.parametrize(
    "change",
    [
        {"replicas": 5},
        {"image": "agent:2"},
        {"timing": {"electionTimeoutMaxMs": 500}},
        {"storage": {"whenDeleted": "Delete"}},
        {"ebpf": {"enabled": True}},
        {"tls": {"certificateDays": 10}},
        {"paused": True},
    ],
)
def test_the_rest_can_change(change: dict[str, Any]) -> None:
    assert complaints(cluster(IMAGE | change), cluster(IMAGE)) == []


def test_a_volumes_class_can_not_be_taken_away() -> None:
    with_class = cluster(IMAGE | {"storage": {"className": "fast"}})
    assert complaints(cluster(IMAGE), with_class) != []
    assert complaints(with_class, with_class) == []


def test_every_rule_is_broken_by_some_test() -> None:
    """A rule that nothing breaks may say nothing at all."""
    first = cluster(IMAGE)
    changes = [
        {"ports": {"raft": 5556}},
        {"storage": {"size": "3Gi"}},
        {"network": {"hostNetwork": False}},
        {"tls": {"authoritySecret": "other"}},
    ]
    said = [one for change, _ in MISTAKES for one in complaints(cluster(IMAGE | change))]
    said += [one for name in ("7up", "a" * 49) for one in complaints(cluster(IMAGE, name))]
    said += [one for change in changes for one in complaints(cluster(IMAGE | change), first)]
    assert {rule["message"] for rule in RULES} - set(said) == set()


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        *((IMAGE | change, "demo") for change, _ in MISTAKES),
        (IMAGE, "7up"),
        (IMAGE, "a" * 49),
    ],
)
def test_the_operator_refuses_what_the_api_server_would(spec: dict[str, Any], name: str) -> None:
    """API servers before 1.25 know no rules in CEL. Fields without a meaning they all drop."""
    if any(one.endswith("unknown") for one in complaints(cluster(spec, name))):
        return
    with pytest.raises(InvalidSpec):
        read_spec(name, spec)


def test_a_rule_about_a_change_is_not_asked_of_what_was_not_there() -> None:
    assert (
        list(broken_rules(SCHEMA, cluster(IMAGE | {"replicas": 3, "allowEven": False}), None)) == []
    )
