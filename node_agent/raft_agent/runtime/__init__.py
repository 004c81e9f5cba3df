"""The one loop: gathers events, calls the core's step, carries out the effects in their order."""

from raft_agent.runtime.service import run

__all__ = ["run"]
