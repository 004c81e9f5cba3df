"""What `raftctl doctor` says of an agent's certificates."""

from __future__ import annotations

import datetime
import ipaddress
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from raftctl.doctor_checks import Finding

if TYPE_CHECKING:
    from raft_agent.config import Config
    from raft_agent.tls.files import TlsFiles

_SOON = datetime.timedelta(days=30)


def certificates(config: Config) -> Iterator[Finding]:
    """Whether the files in [tls] can be used, and for how long yet."""
    files = config.tls.files
    if files is not None:
        yield _of_files(files, config.server.node_id)
    elif not _is_loopback(config.server.listen_addr):
        text = f"there is no [tls]: whoever reaches {config.server.listen_addr} can change all"
        yield Finding("warn", "tls", text, "raftctl cert ca --dir pki")


def _of_files(files: TlsFiles, node_id: str) -> Finding:
    from raft_agent.tls.credentials import load  # noqa: PLC0415  # TLS is for those who use it
    from raft_agent.tls.errors import TlsError  # noqa: PLC0415
    from raft_agent.tls.identity import Identity, Kind  # noqa: PLC0415

    look = f"raftctl cert show {shlex.quote(files.cert)} {shlex.quote(files.ca)}"
    try:
        loaded = load(files, Identity(Kind.NODE, node_id))
    except TlsError as error:
        return Finding("fail", "tls", str(error), look)
    ends = min(loaded.not_after, loaded.authorities_end)
    text = f"{files.cert} and its authority are valid until {ends:%Y-%m-%d}"
    if ends - datetime.datetime.now(datetime.UTC) < _SOON:
        return Finding("warn", "tls", text, f"raftctl cert renew {shlex.quote(files.cert)}")
    return Finding("ok", "tls", text)


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
