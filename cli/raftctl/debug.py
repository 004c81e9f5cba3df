"""`raftctl debug bundle`: everything that a bug report needs, in one file, without secrets."""

from __future__ import annotations

import io
import os
import platform
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click

from raft_agent import __version__
from raft_agent.api import protocol
from raftctl.context import Context, current
from raftctl.errors import CommandError
from raftctl.framework import RaftGroup, Utf8
from raftctl.output import Output, printable, to_json

_EVENTS = 1000
_LOG_BYTES = 4 << 20

# No request for keys, values or messages: what users keep is nobody's business.
_ASKED: dict[str, tuple[protocol.Request, type]] = {
    "status": (protocol.Status(id=1), protocol.StatusResult),
    "health": (protocol.Health(id=1), protocol.HealthResult),
    "members": (protocol.MemberList(id=1), protocol.MemberListResult),
    "vitals": (protocol.Vitals(id=1), protocol.VitalsResult),
    "settings": (protocol.SettingsList(id=1), protocol.SettingsResult),
    "kernel": (protocol.Kernel(id=1), protocol.KernelResult),
    "events": (protocol.Events(id=1, limit=_EVENTS), protocol.EventsResult),
}


@click.group(
    cls=RaftGroup, examples="raftctl --node node-01 debug bundle report.tar.gz --log agent.log"
)
def debug() -> None:
    """Collect what a bug report needs."""


@debug.command(
    name="bundle",
    action="write the bundle",
    examples="""
    raftctl --node node-01 debug bundle report.tar.gz
    raftctl --node node-01 debug bundle report.tar.gz --config raft.toml --log agent.log
    """,
)
@click.argument("file", type=Utf8())
@click.option(
    "--config", metavar="FILE", type=Utf8(), help="The agent's raft.toml; its secrets are left out."
)
@click.option(
    "--log", metavar="FILE", type=Utf8(), help="The agent's log; the last 4 MiB are taken."
)
def bundle(file: str, config: str | None, log: str | None) -> None:
    """Write everything about this node that a bug report needs to FILE, a .tar.gz.

    What the agent says of itself and of the cluster, what doctor finds, versions, and with
    --config and --log these files. No keys, values and messages, no secrets. What can't be had is
    said in the file; look through it before you give it away.
    """
    context = current()
    parts = dict(_parts(context, config, log))
    try:
        _put(Path(file), parts)
    except FileExistsError:
        raise CommandError(
            f"{printable(file)} is there already", hint="Give another name, or remove it first"
        ) from None
    except OSError as failure:
        raise CommandError(
            f"{printable(file)}: {failure.strerror}",
            hint="Give a FILE where you may write and where there is room",
        ) from None
    missing = sorted(name for name in parts if name.endswith(".error"))
    out = context.out
    text = f"{out.mark(True)} Wrote {printable(file)}: {', '.join(sorted(parts))}"
    if missing:
        text += "\n  What could not be had is said in it; look through it before you give it away"
    out.result(text, {"file": file, "parts": sorted(parts)})


def _parts(context: Context, config: str | None, log: str | None) -> Iterator[tuple[str, str]]:
    """(name, text) of each file in the bundle; what failed is a part too."""
    yield "about.json", to_json(_about())
    for name, (request, kind) in _ASKED.items():
        try:
            yield f"{name}.json", to_json(context.ask(request, kind))
        except CommandError as failure:
            yield f"{name}.error", f"{failure.error}\n{failure.hint}\n"
    yield from _doctor(context)
    if config is not None:
        yield from _config(config)
    if log is not None:
        yield from _log(log)


def _about() -> dict[str, object]:
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "raftctl": __version__,
        "python": sys.version,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "processors": os.cpu_count(),
    }


def _doctor(context: Context) -> Iterator[tuple[str, str]]:
    from raftctl.doctor import examine, finding_line  # noqa: PLC0415

    plain = Output("text", color=False)
    try:
        lines = [finding_line(finding, plain) for finding in examine(context)]
    except CommandError as failure:
        yield "doctor.error", f"{failure.error}\n"
    else:
        yield "doctor.txt", "\n".join(lines) + "\n"


def _config(file: str) -> Iterator[tuple[str, str]]:
    """The file without its secrets. Where these can't be told from the rest it is left out."""
    import tomllib  # noqa: PLC0415

    from raft_agent.config import secrets_in  # noqa: PLC0415

    try:
        text = Path(file).read_text()
        secrets = secrets_in(tomllib.loads(text))
    except (OSError, ValueError) as failure:
        yield "raft.toml.error", f"left out: {getattr(failure, 'strerror', None) or failure}\n"
        return
    if not all(secret in text for secret in secrets):
        yield "raft.toml.error", "left out: a secret in it is written with escapes\n"
        return
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "(left out)")
    yield "raft.toml", text


def _log(file: str) -> Iterator[tuple[str, str]]:
    try:
        with Path(file).open("rb") as log:
            size = log.seek(0, io.SEEK_END)
            log.seek(max(size - _LOG_BYTES, 0))
            yield "agent.log", log.read().decode(errors="backslashreplace")
    except OSError as failure:
        yield "agent.log.error", f"{failure.strerror}\n"


def _put(path: Path, parts: dict[str, str]) -> None:
    """The bundle in its place, whole or not at all. Raises FileExistsError and OSError."""
    # Addresses and names are in it: for its owner alone, until that one decides.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as raw:
            _write(raw, path.name.removesuffix(".tar.gz").removesuffix(".tgz"), parts)
        # Taken, so that what is put there now replaces nobody else's file.
        path.open("xb").close()
        temporary.replace(path)
    except BaseException:
        temporary.unlink()
        raise


def _write(raw: io.BufferedWriter, directory: str, parts: dict[str, str]) -> None:
    with tarfile.open(fileobj=raw, mode="w:gz") as archive:
        for name, text in parts.items():
            data = text.encode()
            info = tarfile.TarInfo(f"{directory}/{name}")
            info.size = len(data)
            info.mtime = int(time.time())
            archive.addfile(info, io.BytesIO(data))
