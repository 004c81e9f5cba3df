"""Versions: which ones a program knows, and what to say of one that it does not.

There are two kinds. Each format of bytes (frames, batches, segments, snapshots, …) has a version of
its own, which stands in the bytes. The *cluster version* says what the members may write into the
log at all; all of them agree on it, because it is raised through the log (`machine/upgrade.py`).
"""

from __future__ import annotations

import msgspec

from raft_agent import __version__


class VersionError(Exception):
    """This program is too old, or too new, for what it has found; the text says what to do."""


class Versions(msgspec.Struct, frozen=True):
    """All versions from `oldest` to `newest`."""

    oldest: int
    newest: int

    def __contains__(self, version: int) -> bool:
        return self.oldest <= version <= self.newest

    def __str__(self) -> str:
        if self.oldest == self.newest:
            return f"version {self.oldest}"
        return f"versions {self.oldest} to {self.newest}"


CLUSTER_VERSIONS = Versions(1, 1)
"""The cluster versions that this program can be a member with."""


def other_version(what: str, found: int, known: Versions) -> str:
    """What was found and what this program knows; `advise` says what to do."""
    return f"{what} is of version {found}, and raft-agent {__version__} knows {known}"


def advise(found: int, known: Versions) -> str:
    """What to do about a version that is none of `known`."""
    if found > known.newest:
        return f"Install a raft-agent that knows version {found}, such as the one that wrote it"
    return (
        f"Install an older raft-agent that knows version {found} and a later one, let it run, and "
        "upgrade from there"
    )
