"""A configuration file to start from, and what comes of loading it."""

from __future__ import annotations

from pathlib import Path

import pytest

from raft_agent.config import Config, ConfigError, load

SERVER = '[server]\nnode_id = "node-01"\ndata_dir = "/var/lib/raft"\n'
PEERS = (
    '[[peers]]\nid = "node-03"\naddress = "10.0.0.3:5555"\n'
    '[[peers]]\nid = "node-02"\naddress = "10.0.0.2:5555"\n'
)


def read(file: Path, text: str, *overrides: str, **environ: str) -> Config:
    file.write_text(text)
    return load(file, overrides=overrides, environ=environ)


def refusal(file: Path, text: str, *overrides: str, **environ: str) -> str:
    """What is said, with the file's directory left out."""
    with pytest.raises(ConfigError) as caught:
        read(file, text, *overrides, **environ)
    assert len(caught.value.problems) == len(str(caught.value).splitlines())
    return str(caught.value).replace(f"{file.parent}/", "")
