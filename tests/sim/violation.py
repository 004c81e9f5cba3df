"""How a run fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.sim.process import Process


class Violation(AssertionError):  # noqa: N818 - it is no error of the simulator's
    """A rule of Raft, or a promise to a client, was broken."""


def require(holds: bool, rule: str, process: Process, **facts: object) -> None:
    """Raise Violation with `rule` and `facts` unless it holds."""
    if not holds:
        told = ", ".join(f"{name}={value}" for name, value in facts.items())
        raise Violation(f"{process.name}: {rule} ({told})")
