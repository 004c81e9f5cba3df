"""The Kubernetes operator: it founds, grows, shrinks, updates and repairs Raft clusters.

`planner` decides, and reads first; `engine` looks, asks it, and does the one thing that it says.
"""

from raft_agent import __version__

__all__ = ["__version__"]
