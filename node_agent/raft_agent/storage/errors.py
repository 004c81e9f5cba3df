"""What the storage says when it can't go on."""

from __future__ import annotations

START_ANEW = (
    "Keep a copy of the data directory, don't repair or delete single files. If the other members "
    "are well, remove this member and add it again with an empty data directory: at a healthy one "
    "`raftctl leave NAME`, then `raftctl join NAME ADDRESS`. If it was the only voter, restore a "
    "backup: `raftctl snapshot restore`."
)

REBUILD = (
    "If the other members are well, they have all of it: `raftctl rebuild` at this node, or while "
    "its agent does not start `raftctl rebuild --data-dir DIR`, and then start it. Should that not "
    f"help: {START_ANEW}"
)

OTHER_VERSION = "Install the raft-agent that wrote it, or a later one"


class StorageError(Exception):
    """The data directory can't be used as it is.

    `what` happened, in which file (`path`, "" when it is no single one), at which byte (`offset`,
    -1 when that says nothing) and what to do next (`advice`); str() gives all of it.
    """

    def __init__(self, what: str, path: str = "", offset: int = -1, advice: str = "") -> None:
        self.what = what
        self.path = path
        self.offset = offset
        self.advice = advice
        where = f"{path}: " if path else ""
        at = f" (at byte {offset})" if offset >= 0 else ""
        after = f". {advice}" if advice else ""
        super().__init__(f"{where}{what}{at}{after}")


def in_words(error: Exception) -> str:
    """For people: the file, when the error has one, and what happened, without its number."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
