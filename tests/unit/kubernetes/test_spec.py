"""The definition of the resource and the operator's own reading of it say the same."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from raft_operator.spec import InvalidSpec, Spec, read_spec
from tests.unit.kubernetes.crd import SCHEMA, SPEC, with_defaults

IMAGE = {"image": "agent:1"}


def fields(kind: type, path: str = "") -> Iterator[tuple[str, type]]:
    for field in msgspec.structs.fields(kind):
        where = f"{path}.{field.encode_name}"
        yield where, field.type
        for inner in _structs(field.type):
            yield from fields(inner, where)


def _structs(kind: Any) -> Iterator[type]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind
    elif typing.get_origin(kind) in (tuple, types.UnionType, typing.Annotated):
        for part in typing.get_args(kind):
            yield from _structs(part)


def keys(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    if schema.get("type") == "array":
        yield from keys(schema["items"], path)
    for name, part in schema.get("properties", {}).items():
        yield f"{path}.{name}"
        yield from keys(part, f"{path}.{name}")


def test_they_have_the_same_fields() -> None:
    assert {where for where, _ in fields(Spec)} == set(keys(SPEC))


def test_they_have_the_same_defaults() -> None:
    assert read_spec("c", with_defaults(IMAGE)) == read_spec("c", IMAGE)


def test_every_field_is_described() -> None:
    def undescribed(schema: dict[str, Any], path: str) -> Iterator[str]:
        for name, part in schema.get("properties", {}).items():
            if "description" not in part and not path.endswith("imagePullSecrets"):
                yield f"{path}.{name}"
            yield from undescribed(part.get("items", part), f"{path}.{name}")

    assert list(undescribed(SPEC, "spec")) == []


def test_the_schema_is_structural() -> None:
    """Each part has a type, and none is both closed and open (KEP-1111)."""

    def untyped(schema: dict[str, Any], path: str) -> Iterator[str]:
        if "type" not in schema:
            yield path
        if "properties" in schema and "additionalProperties" in schema:
            yield path
        for name, part in schema.get("properties", {}).items():
            yield from untyped(part, f"{path}.{name}")
        if "items" in schema:
            yield from untyped(schema["items"], f"{path}[]")

    assert list(untyped(SCHEMA, "")) == []


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("c" * 49, {}, "too long"),
        ("7up", {}, "start with a letter"),
        ("c", {"replicas": 2}, "even number"),
        ("c", {"replicas": 0}, ">= 1"),
        ("c", {"replicas": 11}, "<= 9"),
        ("c", {"replicas": "3"}, "Expected `int`"),
        ("c", {"image": ""}, "length >= 1"),
        ("c", {"image": "agent:1", "version": "2"}, "has a tag"),
        ("c", {"image": "host:5000/agent@sha256:ab", "version": "2"}, "has a tag or digest"),
        ("c", {"timing": {"heartbeatIntervalMs": 150}}, "greater than heartbeat"),
        ("c", {"timing": {"electionTimeoutMinMs": 300}}, "greater than electionTimeoutMin"),
        ("c", {"ports": {"http": 5555}}, "different ports"),
        ("c", {"storage": {"size": "much"}}, "storage.size"),
        ("c", {"storage": {"whenScaled": "Perhaps"}}, "whenScaled"),
    ],
)
def test_a_bad_spec_is_refused_in_words(name: str, change: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        read_spec(name, {**IMAGE, **change})
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "change",
    [
        {"replicas": 4, "allowEven": True},
        {"image": "host:5000/agent", "version": "2"},
        {"replicas": 1},
    ],
)
def test_a_good_spec_is_taken(change: dict[str, Any]) -> None:
    assert read_spec("c", {**IMAGE, **change})


def test_an_image_gets_its_version() -> None:
    assert read_spec("c", {"image": "host:5000/agent", "version": "2"}).full_image == (
        "host:5000/agent:2"
    )
    assert read_spec("c", IMAGE).full_image == "agent:1"
