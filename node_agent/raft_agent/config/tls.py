"""Whether [tls] can work: all of it is there, and the files hold what belongs into them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raft_agent.config.model import Tls
from raft_agent.config.sources import Sources
from raft_agent.tls.errors import TlsError
from raft_agent.tls.identity import Identity, Kind

_NEEDED = ("ca", "cert", "key")
_EXAMPLES = {"ca": "ca.pem", "cert": "node-01.pem", "key": "node-01-key.pem"}


def check_tls(
    sources: Sources, tls: Mapping[str, Any], server: Mapping[str, Any], *, with_files: bool
) -> None:
    """Note what is wrong. `with_files`: also what the files hold."""
    given = sources.sections["tls"]
    if not given.keys() & {*_NEEDED, "crl"}:
        return
    missing = [name for name in _NEEDED if name not in given]
    for name in missing:
        example = f'{name} = "/etc/raft/{_EXAMPLES[name]}"'
        text = f"tls.{name} is missing: TLS takes {', '.join(_NEEDED)}; add {example} to [tls]"
        sources.missing(("tls",), text)
    if missing or len(tls) < len(given) or "node_id" not in server or not with_files:
        return
    # The library behind it is for those who have [tls].
    from raft_agent.tls.credentials import load  # noqa: PLC0415

    files = Tls(**tls).files
    assert files is not None  # noqa: S101  (nothing is missing)
    try:
        load(files, Identity(Kind.NODE, server["node_id"]))
    except TlsError as error:
        name = next((name for name in given if error.file and tls[name] == error.file), "cert")
        sources.problem(given[name], f"tls.{name}: {error}")
