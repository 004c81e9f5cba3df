"""Control groups of whole systems that the tests boot."""

from __future__ import annotations

from pathlib import Path


def remove_group(group: Path) -> bool | None:
    """Whether the group and those below it are gone; processes that were killed take a moment."""
    try:
        for folder in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
            folder.rmdir()
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return None
    return True
