"""raft.toml, the environment and `--set` become one checked, immutable `Config`."""

from raft_agent.config.errors import ConfigError, Problem
from raft_agent.config.loader import load
from raft_agent.config.model import Cluster, Config, Ebpf, Peer, Server, Timing
from raft_agent.config.schema import secrets_in

__all__ = [
    "Cluster",
    "Config",
    "ConfigError",
    "Ebpf",
    "Peer",
    "Problem",
    "Server",
    "Timing",
    "load",
    "secrets_in",
]
