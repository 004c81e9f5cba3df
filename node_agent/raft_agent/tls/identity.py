"""Who somebody is, and what they may do.

Known without the library that reads certificates, so that those who only ask for it start fast.
"""

from __future__ import annotations

import enum
import re

import msgspec

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
# RFC 5280, appendix A: the longest common name.
_MAX_CLIENT_NAME = 64


class Kind(enum.StrEnum):
    NODE = "node"
    CLIENT = "client"


class Role(enum.StrEnum):
    """What a client may do; each may do what those before it may."""

    READER = "reader"
    WRITER = "writer"
    ADMIN = "admin"


class Identity(msgspec.Struct, frozen=True):
    """`role` is a client's, None where its certificate gives none."""

    kind: Kind
    name: str
    role: Role | None = None

    def __str__(self) -> str:
        if self.kind is Kind.NODE:
            return f"node {self.name}"
        return f"client {self.name} ({self.role or 'no role'})"


def is_member_name(name: str) -> bool:
    """Whether `name` can be a member's: up to 63 letters, digits, `.`, `_`, `-`."""
    return _NAME.fullmatch(name) is not None


def is_client_name(name: str) -> bool:
    """Whether `name` can be a client's: printable text of 1 to 64 characters."""
    return 1 <= len(name) <= _MAX_CLIENT_NAME and name.isprintable() and name == name.strip()
