"""raft.toml, --set and the environment."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from raft_agent.config import ConfigError, load
from tests.fuzz.target import Target
from tests.unit.config_files import PEERS, SERVER


@functools.cache
def _file() -> Path:
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108
    return Path(tempfile.mkdtemp(prefix="raft-fuzz-", dir=base)) / "raft.toml"


def _load(text: bytes, overrides: list[str], environ: dict[str, str]) -> None:
    file = _file()
    file.write_bytes(text)
    try:
        config = load(file, overrides=overrides, environ=environ)
    except ConfigError as error:
        assert error.problems
        assert len(str(error).split("\n")) == len(error.problems)
        return
    assert config.server.node_id


def load_file(data: bytes) -> None:
    """A file is taken, or refused with a line for each problem."""
    _load(data, [], {})


def load_words(data: bytes) -> None:
    """The same of --set and of variables, as the system gives them to a program."""
    overrides: list[str] = []
    environ: dict[str, str] = {}
    for raw in data.split(b"\0"):
        word = raw.decode("utf-8", "surrogateescape")
        name, equals, value = word.partition("=")
        if equals and name.startswith("RAFT_"):
            environ[name] = value
        else:
            overrides.append(word)
    _load(SERVER.encode(), overrides, environ)


def _files() -> list[bytes]:
    full = (
        SERVER + 'listen_addr = "0.0.0.0:5555"\nlog_level = "info,raft.transport=debug"\n'
        'http_addr = "[::1]:9555"\nipc_socket = "/tmp/x.sock"\n'
        "[timing]\nheartbeat_interval_ms = 50\nelection_timeout_min_ms = 150\n"
        '[ebpf]\nenabled = true\ninterface = "auto"\n'
        "[storage]\nsnapshot_entries = 5\n" + PEERS
    )
    joining = SERVER + '[cluster]\njoin = ["10.0.0.1:5555"]\ntoken = "0123456789abcdef"\n'
    return [full.encode(), joining.encode(), (SERVER + PEERS).encode(), b"[server\n", b"a = [[[["]


def _words() -> list[bytes]:
    return [
        b"server.node_id=node-02\0timing.heartbeat_interval_ms=20",
        b"RAFT_SERVER_NODE_ID=x\0RAFT_PEERS=node-02=10.0.0.2:5555,node-03=10.0.0.3:5555",
        b"peers=node-02=10.0.0.2:5555\0cluster.bootstrap=true\0server.nodeid=x\0nothing",
        b"RAFT_LOG=info,raft.api=debug\0RAFT_LOG_FORMAT=json\0RAFT_EBPF_ENABLED=1",
        b"cluster.join=10.0.0.1:5555, [::1]:5\0cluster.token=0123456789abcdef\0cluster.tokn x",
    ]


TARGETS = (
    Target("raft_toml", load_file, _files, max_bytes=2048),
    Target("overrides", load_words, _words, max_bytes=1024),
)
