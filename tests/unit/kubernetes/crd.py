"""The definition of the resource, and what an API server makes of an object by it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
FILE = ROOT / "charts/raft/crd-bases/raft-ebpf.dev_raftclusters.yaml"
DEFINITION: dict[str, Any] = yaml.safe_load(FILE.read_text())
(_VERSION,) = DEFINITION["spec"]["versions"]
SCHEMA: dict[str, Any] = _VERSION["schema"]["openAPIV3Schema"]
SPEC: dict[str, Any] = SCHEMA["properties"]["spec"]


def with_defaults(spec: dict[str, Any]) -> dict[str, Any]:
    """The spec as it comes back from an API server."""
    found: dict[str, Any] = _default(SPEC, copy.deepcopy(spec))
    return found


def _default(schema: dict[str, Any], value: Any) -> Any:
    if schema.get("type") == "object" and isinstance(value, dict):
        for name, part in schema.get("properties", {}).items():
            if name not in value and "default" in part:
                value[name] = copy.deepcopy(part["default"])
            if name in value:
                value[name] = _default(part, value[name])
    if schema.get("type") == "array" and isinstance(value, list):
        return [_default(schema["items"], item) for item in value]
    return value
