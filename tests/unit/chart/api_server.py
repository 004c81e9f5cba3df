"""What an API server would say of a RaftCluster: by its schema, and by its rules in CEL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import celpy
import jsonschema

from tests.unit.kubernetes.crd import DEFINITION, SCHEMA, with_defaults

Object = dict[str, Any]
RULES = "x-kubernetes-validations"
OPEN = "x-kubernetes-preserve-unknown-fields"
_CEL = celpy.Environment()


def cluster(spec: Object, name: str = "demo") -> Object:
    """A RaftCluster as somebody would write it."""
    group, (version,) = DEFINITION["spec"]["group"], DEFINITION["spec"]["versions"]
    return {
        "apiVersion": f"{group}/{version['name']}",
        "kind": DEFINITION["spec"]["names"]["kind"],
        "metadata": {"name": name},
        "spec": spec,
    }


def complaints(wanted: Object, old: Object | None = None) -> list[str]:
    """Why the object is refused, as a new one or in place of `old`; empty when it is taken."""
    found = wanted | {"spec": with_defaults(wanted.get("spec", {}))}
    before = old and old | {"spec": with_defaults(old.get("spec", {}))}
    validator = jsonschema.Draft202012Validator(SCHEMA)
    broken = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(found)]
    unknown = [f"{where}: unknown" for where in unknown_fields(SCHEMA, found)]
    # As the API server does: rules are asked only of what the schema allows.
    return broken + unknown or list(broken_rules(SCHEMA, found, before))


def unknown_fields(schema: Object, value: Any, where: str = "") -> Iterator[str]:
    """Fields that would be dropped, and that kubectl refuses."""
    if isinstance(value, list):
        for item in value:
            yield from unknown_fields(schema.get("items", {}), item, f"{where}[]")
    if not isinstance(value, dict) or schema.get(OPEN) or "additionalProperties" in schema:
        return
    for name, inner in value.items():
        if name in schema.get("properties", {}):
            yield from unknown_fields(schema["properties"][name], inner, f"{where}.{name}")
        elif where != ".metadata":
            yield f"{where}.{name}"


def rules(schema: Object, where: str = "") -> Iterator[tuple[str, Object]]:
    """Every rule of the definition, with the path of what it is about."""
    for rule in schema.get(RULES, []):
        yield where, rule
    for name, inner in schema.get("properties", {}).items():
        yield from rules(inner, f"{where}.{name}")
    if "items" in schema:
        yield from rules(schema["items"], f"{where}[]")


def broken_rules(schema: Object, value: Any, old: Any) -> Iterator[str]:
    """What rules say that don't hold; those about `oldSelf` are asked where there is one alone."""
    for rule in schema.get(RULES, []):
        about_change = "oldSelf" in rule["rule"]
        if about_change and old is None:
            continue
        known = {"self": celpy.json_to_cel(value)}
        if about_change:
            known["oldSelf"] = celpy.json_to_cel(old)
        if not _CEL.program(_CEL.compile(rule["rule"])).evaluate(known):
            yield rule["message"]
    if isinstance(value, dict):
        for name, inner in schema.get("properties", {}).items():
            if name in value:
                before = old.get(name) if isinstance(old, dict) else None
                yield from broken_rules(inner, value[name], before)
    if isinstance(value, list):
        # Lists without keys have no old items in CEL.
        for item in value:
            yield from broken_rules(schema.get("items", {}), item, None)
