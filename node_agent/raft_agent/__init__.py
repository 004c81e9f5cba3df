"""The raft-ebpf node agent."""

__version__ = "0.1.0"
