"""The dashboard and the alert rules ask for metrics that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from raft_agent.http.families import GROUPS
from tests.unit.http.sources import FakeSource
from tools import metrics_docs

FOLDER = Path(__file__).resolve().parents[3] / "docs" / "monitoring"
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text())
RULES = [
    rule
    for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
# Label matchers of series whose values a reading of an ordinary node tells.
_MATCHER = re.compile(r"(raft_\w+)\{([^}]*)\}")


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:raft|process)_\w+", expression))


def expressions() -> dict[str, str]:
    found = {rule["alert"]: rule["expr"] for rule in RULES}
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    for annotation in DASHBOARD["annotations"]["list"]:
        found[annotation["name"]] = annotation["expr"]
    return found


EXPRESSIONS = expressions()


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_an_expression_names_only_metrics_that_there_are(where: str) -> None:
    asked = names_in(EXPRESSIONS[where])
    assert asked or EXPRESSIONS[where].startswith("up{")
    assert asked - metrics_docs.names() == set()


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_an_expression_names_only_labels_and_values_that_there_are(where: str) -> None:
    labels = {family.name: set(family.labels) for group in GROUPS for family in group.families}
    reading = FakeSource().reading()
    values = {
        family.name: {value for found, _ in family.read(reading) for value in found}
        for group in GROUPS
        for family in group.families
    }
    for metric, matchers in _MATCHER.findall(EXPRESSIONS[where]):
        for label, value in re.findall(r'(\w+)="([^"]*)"', matchers):
            if label == "job":
                continue
            family = re.sub(r"_(bucket|sum|count)$", "", metric)
            assert label in labels[family]
            assert metric == "raft_events_total" or value in values[family]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_happened_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert {"summary", "description"} == set(rule["annotations"])
    assert rule["annotations"]["description"].endswith(".")


def test_the_dashboard_lets_people_choose_source_and_job() -> None:
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == [
        "datasource",
        "job",
    ]
    places = [
        (place["x"], place["y"]) for place in (panel["gridPos"] for panel in DASHBOARD["panels"])
    ]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
