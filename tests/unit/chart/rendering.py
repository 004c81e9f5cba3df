"""The chart as Helm itself renders it: its SDK for Python carries the program's own Go code."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

helm = pytest.importorskip("helm_python", reason="Helm's SDK is there for Linux on x86_64 alone")

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "charts" / "raft"
NOTES = "raft/templates/NOTES.txt"

Document = dict[str, Any]


class StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, where others take one of the two."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        assert len(set(keys)) == len(keys), f"twice in one mapping: {sorted(keys)}"
        return super().construct_mapping(node, deep)


def render_files(
    values: Document | None = None,
    *,
    release: str = "raft",
    namespace: str = "raft-system",
    chart: Path = CHART,
) -> dict[str, str]:
    """Text by template. Raises helm.HelmError."""
    with helm.Chart.load(chart) as loaded:
        loaded.validate_schema(values or {})
        rendered: dict[str, str] = loaded.render(values or {}, name=release, namespace=namespace)
    return rendered


def render(
    values: Document | None = None,
    *,
    release: str = "raft",
    namespace: str = "raft-system",
    chart: Path = CHART,
) -> list[Document]:
    """What Helm would hand to the API server, tests too."""
    files = render_files(values, release=release, namespace=namespace, chart=chart)
    return [
        document
        for name, text in files.items()
        if name != NOTES
        for document in _documents(text)
        if document is not None
    ]


def _documents(text: str) -> Iterator[Document | None]:
    loader = StrictLoader(text)
    while loader.check_data():
        yield loader.get_data()


def is_test(document: Document) -> bool:
    """Whether it is made by `helm test` alone."""
    hook = document["metadata"].get("annotations", {}).get("helm.sh/hook")
    return bool(hook == "test")


def only(documents: list[Document], kind: str) -> Document:
    """The one of a kind that is installed."""
    (found,) = (one for one in documents if one["kind"] == kind and not is_test(one))
    return found
