"""What people may set is described, checked before anything is made, and shown in the README."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.unit.chart.rendering import CHART, helm, render
from tools import chart_files

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())


def paths(values: dict[str, Any], schema: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Keys, down to where the schema says nothing more about them."""
    for key, value in values.items():
        yield prefix + key
        inner = schema.get("properties", {}).get(key, {})
        if isinstance(value, dict) and "properties" in inner and key != "resources":
            yield from paths(value, inner, f"{prefix}{key}.")


def schema_paths(schema: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, inner in schema.get("properties", {}).items():
        yield prefix + key
        if inner.get("type") == "object" and key != "resources":
            yield from schema_paths(inner, f"{prefix}{key}.")


def test_the_schema_knows_each_value_and_no_other() -> None:
    # Helm itself hands `global` to every chart.
    assert set(schema_paths(SCHEMA)) - {"global"} == set(paths(VALUES, SCHEMA))


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"watch": {"namespace": "shop"}}, "namespace"),
        ({"watch": {"namespaces": "shop"}}, "namespaces"),
        ({"watch": {"namespaces": ["Shop"]}}, "namespaces"),
        ({"watch": {"namespaces": ["shop", "shop"]}}, "namespaces"),
        ({"watch": {"namespaces": [""]}}, "namespaces"),
        ({"replicas": 2}, "replicas"),
        ({"image": "raft-operator:1"}, "image"),
        ({"image": {"repository": ""}}, "repository"),
        ({"image": {"tag": 1.0}}, "tag"),
        ({"image": {"tag": "a b"}}, "tag"),
        ({"image": {"digest": "sha256:12"}}, "digest"),
        ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
        ({"imagePullSecrets": ["registry"]}, "imagePullSecrets"),
        ({"crds": {"enabled": "yes"}}, "enabled"),
        ({"fullnameOverride": "Raft"}, "fullnameOverride"),
        ({"fullnameOverride": "r" * 55}, "fullnameOverride"),
        ({"commonLabels": {"team": 7}}, "commonLabels"),
        ({"commonLabels": {"a b": "c"}}, "a b"),
        ({"serviceAccount": {"name": "a_b"}}, "name"),
        ({"log": {"level": "loud"}}, "level"),
        ({"log": {"format": "xml"}}, "format"),
        ({"health": {"port": 80}}, "port"),
        ({"health": {"port": 65536}}, "port"),
        ({"resources": {"limit": {}}}, "limit"),
        ({"extraEnv": [{"name": "A", "value": 1}]}, "extraEnv"),
        ({"extraEnv": [{"value": "1"}]}, "extraEnv"),
        ({"nodeSelector": {"a": True}}, "nodeSelector"),
        ({"tolerations": {"key": "a"}}, "tolerations"),
        ({"networkPolicy": {"agentPorts": []}}, "agentPorts"),
        ({"networkPolicy": {"nodeCIDRs": ["10.0.0.1"]}}, "nodeCIDRs"),
        ({"serviceMonitor": {"interval": "5"}}, "interval"),
        ({"alerts": {"without": ["Everything"]}}, "without"),
    ],
)
def test_a_value_that_can_not_work_is_refused_by_name(values: dict[str, Any], word: str) -> None:
    with pytest.raises(helm.HelmValuesError) as refused:
        render(values)
    assert word in str(refused.value)


def test_an_alert_that_is_to_be_left_out_has_to_be_there() -> None:
    with pytest.raises(helm.HelmRenderError, match="there is no alert RaftNone, but RaftAgentDown"):
        render({"alerts": {"enabled": True, "without": ["RaftNone"]}})


def test_each_value_is_described() -> None:
    rows = chart_files.rows()
    keys = {row.key for row in rows}
    assert len(keys) == len(rows)
    described = {path for path in paths(VALUES, SCHEMA) if path in keys}
    above = {
        path for path in paths(VALUES, SCHEMA) if any(key.startswith(f"{path}.") for key in keys)
    }
    assert described | above == set(paths(VALUES, SCHEMA))
    assert all(row.meaning.endswith(".") for row in rows)


def test_a_value_without_a_description_is_told(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "values.yaml").write_text(
        "a:\n  # -- Good.\n  b: 1\n  # not a description\n  c: 2\n"
    )
    monkeypatch.setattr(chart_files, "CHART", tmp_path)
    with pytest.raises(ValueError, match=r"a\.c has no comment"):
        chart_files.rows()


def test_the_readme_is_what_the_values_say() -> None:
    assert (CHART / "README.md").read_text() == chart_files.page(), "run make docs"


@pytest.mark.parametrize("path", chart_files.copies(), ids=lambda path: path.name)
def test_what_the_chart_has_from_elsewhere_is_the_same_there(path: Any) -> None:
    assert path.read_text() == chart_files.copies()[path], "run make docs"


def test_every_sample_says_in_a_comment_what_it_makes() -> None:
    assert len(chart_files.samples()) >= 4
    for sample in chart_files.samples():
        assert f"[{sample.name}](samples/{sample.name}) | " in chart_files.page()
        assert sample.read_text().startswith("# ")
