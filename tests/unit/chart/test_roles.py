"""The operator may do what its code calls, where it watches, and nothing else."""

from __future__ import annotations

from typing import Any

import kopf
import pytest
import yaml

from raft_operator.handlers import configure
from tests.unit.chart.rendering import ROOT, Document, is_test, only, render

PERMISSIONS = yaml.safe_load((ROOT / "operator/raft_operator/permissions.yaml").read_text())
Right = tuple[str, str, str]


def rights(rules: list[Document]) -> set[Right]:
    """(group, resource, verb) of each; asserts that a rule names them all and nothing narrower."""
    found = set()
    for rule in rules:
        assert rule.keys() == {"apiGroups", "resources", "verbs"}
        assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"]
        found |= {
            (group, resource, verb)
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }
    return found


def granted(values: dict[str, Any], **options: str) -> dict[str, set[Right]]:
    """What the operator's account may do, by namespace; "" is everywhere."""
    documents = [one for one in render(values, **options) if not is_test(one)]
    deployment = only(documents, "Deployment")
    account = deployment["spec"]["template"]["spec"]["serviceAccountName"]
    roles = {
        (one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]): one["rules"]
        for one in documents
        if one["kind"] in {"Role", "ClusterRole"}
    }
    found: dict[str, set[Right]] = {}
    for binding in documents:
        if binding["kind"] not in {"RoleBinding", "ClusterRoleBinding"}:
            continue
        namespace = binding["metadata"].get("namespace", "")
        (subject,) = binding["subjects"]
        assert subject == {
            "kind": "ServiceAccount",
            "name": account,
            "namespace": deployment["metadata"]["namespace"],
        }
        role = binding["roleRef"]
        found.setdefault(namespace, set()).update(
            rights(roles[role["kind"], namespace, role["name"]])
        )
    return found


NAMESPACED, CLUSTER = rights(PERMISSIONS["namespaced"]), rights(PERMISSIONS["cluster"])


def test_an_operator_of_all_namespaces_may_do_in_all_what_its_code_calls() -> None:
    assert granted({}) == {"": NAMESPACED | CLUSTER}


def test_an_operator_of_some_namespaces_may_do_nothing_in_others() -> None:
    values = {"watch": {"namespaces": ["a", "b"]}}
    elsewhere = {("", "nodes", "list")}
    assert granted(values) == {"": elsewhere, "a": NAMESPACED, "b": NAMESPACED}
    assert elsewhere < CLUSTER
    settings = kopf.OperatorSettings()
    configure(settings, ("a", "b"))
    # With that, kopf would look at definitions, too.
    assert settings.scanning.disabled


@pytest.mark.parametrize("values", [{}, {"watch": {"namespaces": ["a"]}}])
def test_the_account_is_the_one_that_is_named(values: dict[str, Any]) -> None:
    named = granted(values | {"serviceAccount": {"create": False, "name": "somebody"}})
    assert named == granted(values)


def test_the_operator_can_not_give_itself_more() -> None:
    for group, resource, verb in NAMESPACED | CLUSTER:
        assert group != "rbac.authorization.k8s.io"
        assert verb not in {"escalate", "bind", "impersonate"}
        assert resource not in {"pods/exec", "serviceaccounts/token", "nodes/proxy"}


def test_two_releases_of_one_name_do_not_share_a_role() -> None:
    def names(namespace: str) -> set[str]:
        return {
            one["metadata"]["name"]
            for one in render(namespace=namespace)
            if one["kind"].startswith("ClusterRole")
        }

    assert names("one") & names("two") == set()


def test_who_may_edit_a_namespace_may_edit_its_clusters_but_not_their_status() -> None:
    roles = {
        one["metadata"]["name"]: one
        for one in render(namespace="s")
        if one["kind"] == "ClusterRole"
    }
    view, edit = roles["s-raft-operator-view"], roles["s-raft-operator-edit"]
    assert view["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    assert {verb for _, _, verb in rights(view["rules"])} == {"get", "list", "watch"}
    for target in ("edit", "admin"):
        assert (
            edit["metadata"]["labels"][f"rbac.authorization.k8s.io/aggregate-to-{target}"] == "true"
        )
    assert "raftclusters/status" not in {resource for _, resource, _ in rights(edit["rules"])}


def test_no_role_is_made_when_somebody_else_makes_them() -> None:
    documents = render({"rbac": {"create": False, "aggregate": False}})
    assert not [one for one in documents if "Role" in one["kind"] and not is_test(one)]
