"""The keys of the model as a table: what the loader checks against and the documentation lists."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec

from raft_agent.config.model import (
    Cluster,
    Ebpf,
    ExportSeed,
    Key,
    Peer,
    Server,
    Storage,
    Timing,
    Tls,
)

SECTIONS: dict[str, type[msgspec.Struct]] = {
    "server": Server,
    "timing": Timing,
    "storage": Storage,
    "ebpf": Ebpf,
    "cluster": Cluster,
    "tls": Tls,
}
PEERS = "peers"
# The tables [[ebpf.export]], which are no key of the section that they are in.
EXPORTS = ("ebpf", "export")

_KIND_NAMES = {str: "a string", int: "a whole number", bool: "true or false"}


class Field(msgspec.Struct, frozen=True):
    """One key: `kind` is str, int, bool or tuple (of strings)."""

    name: str
    kind: type
    key: Key
    required: bool
    default: Any

    @property
    def kind_name(self) -> str:
        return _KIND_NAMES.get(self.kind, "a list of strings")

    def accepts(self, value: object) -> bool:
        if self.kind is tuple:
            return isinstance(value, list) and all(isinstance(item, str) for item in value)
        return type(value) is self.kind  # isinstance would take true for a number


def _fields_of(struct: type[msgspec.Struct]) -> dict[str, Field]:
    hints = get_type_hints(struct, include_extras=True)
    fields = {}
    for field in msgspec.structs.fields(struct):
        annotated, key = get_args(hints[field.name])
        fields[field.name] = Field(
            name=field.name,
            kind=_kind(annotated),
            key=key,
            required=field.required,
            default=None if field.required else field.default,
        )
    return fields


def _kind(annotation: Any) -> type:
    """The plain type: `str | None` is a str that may be left out, `tuple[str, ...]` a tuple."""
    if isinstance(annotation, types.UnionType) or get_origin(annotation) is Union:
        annotation = next(arg for arg in get_args(annotation) if arg is not types.NoneType)
    kind = get_origin(annotation) or annotation
    assert isinstance(kind, type)  # noqa: S101
    return kind


FIELDS: Mapping[str, Mapping[str, Field]] = {
    section: _fields_of(struct) for section, struct in SECTIONS.items()
}
SECRET_NAMES = [
    name for fields in FIELDS.values() for name, field in fields.items() if field.key.secret
]


def secrets_in(document: Mapping[str, Any]) -> list[str]:
    """The values in a parsed raft.toml that are shown to nobody."""
    found = []
    for section, fields in FIELDS.items():
        table = document.get(section)
        if isinstance(table, dict):
            values = [
                table[name] for name, field in fields.items() if field.key.secret and name in table
            ]
            found += [str(value) for value in values if value != ""]
    return found


PEER_FIELDS: Mapping[str, Field] = _fields_of(Peer)
EXPORT_FIELDS: Mapping[str, Field] = _fields_of(ExportSeed)


def environment_name(section: str, name: str) -> str:
    return f"RAFT_{section}_{name}".upper()
