"""`raftctl snapshot`: backups, and a new cluster from one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from raftctl.context import Context, agent_errors, current
from raftctl.errors import CommandError
from raftctl.framework import RaftGroup, Utf8
from raftctl.membership import Address
from raftctl.output import printable

if TYPE_CHECKING:
    from raft_agent.backup import BackupInfo

_TELL_EVERY_S = 1.0


@click.group(
    cls=RaftGroup,
    examples="""
    raftctl --node node-01 snapshot save backup.raft
    raftctl snapshot status backup.raft
    raftctl snapshot restore backup.raft --data-dir /var/lib/raft --config /etc/raft/raft.toml
    """,
)
def snapshot() -> None:
    """Save and restore backups."""


class BackupFile(Utf8):
    """Where a backup is, or is to be."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return Path(super().convert(value, param, ctx))


@contextmanager
def _backup_errors() -> Iterator[None]:
    """Turns what the offline part says into CommandError."""
    from raft_agent.backup import BackupError  # noqa: PLC0415  (not for --help)

    try:
        yield
    except BackupError as error:
        raise CommandError(str(error), hint=error.hint) from error


def info_text(info: BackupInfo) -> str:
    moment = datetime.fromtimestamp(info.time_ms / 1000, UTC)
    members = ", ".join(
        f"{printable(member.name)} ({printable(member.address)}{_role(member.role)})"
        for member in info.members
    )
    rows = (
        ("Cluster", info.cluster_id),
        ("Index", f"{info.index} of term {info.term}"),
        ("Revision", str(info.revision)),
        ("Log time", moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")),
        ("Keys", str(info.keys)),
        ("Messages", str(info.messages)),
        ("Leases", str(info.leases)),
        ("Sessions", str(info.sessions)),
        ("Members", members),
        ("Size", f"{info.size_bytes} bytes"),
        ("CRC32C", info.checksum),
        ("Version", f"{info.version} in a file of version {info.file_version}"),
    )
    return "\n".join(f"{name + ':':<10} {value}" for name, value in rows)


def _role(role: str) -> str:
    return "" if role == "voter" else f", {role}"


@snapshot.command(
    action="save the snapshot",
    examples="""
    raftctl --node node-01 snapshot save backup.raft
    raftctl --node node-02 snapshot save /backups/latest.raft --force
    """,
)
@click.argument("file", type=BackupFile())
@click.option("--force", is_flag=True, help="Replace FILE when it is there already.")
def save(file: Path, *, force: bool) -> None:
    """Write everything that the cluster holds to FILE, which nobody else may read.

    Any member can be asked; all that was acknowledged before is in it. FILE gets its name only when
    all of it was checked and is on the disk.
    """
    context = current()
    with context.client() as client, agent_errors(context.agent, writes=False), _backup_errors():
        info = client.save_snapshot(str(file), force=force, on_progress=_progress(context))
    text = f"{context.out.mark(True)} Saved {printable(str(file))}\n{info_text(info)}"
    context.out.result(text, info)


def _progress(context: Context) -> Callable[[float, int], None]:
    told_at = time.monotonic()

    def tell(part: float, size_bytes: int) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= _TELL_EVERY_S:
            told_at = time.monotonic()
            context.out.note(f"  {part:.0%}, {size_bytes / 1e6:.1f} MB")

    return tell


@snapshot.command(
    action="read the snapshot",
    examples="""
    raftctl snapshot status backup.raft
    raftctl -o json snapshot status backup.raft
    """,
)
@click.argument("file", type=BackupFile())
def status(file: Path) -> None:
    """Check all checksums of FILE, and show what it holds. Needs no agent."""
    from raft_agent.backup import inspect  # noqa: PLC0415  (not for --help)

    context = current()
    with _backup_errors():
        info = inspect(file)
    context.out.result(info_text(info), info)


@snapshot.command(
    action="restore the snapshot",
    examples="""
    raftctl snapshot restore backup.raft --data-dir /var/lib/raft --config /etc/raft/raft.toml
    raftctl snapshot restore backup.raft --data-dir data --name node-01 --address 10.0.0.1:5555
    """,
)
@click.argument("file", type=BackupFile())
@click.option(
    "--data-dir",
    required=True,
    metavar="DIR",
    type=BackupFile(),
    help="Of the new cluster's first member: empty, or not there yet.",
)
@click.option(
    "--config", metavar="FILE", type=BackupFile(), help="Its raft.toml: name and address."
)
@click.option("--name", metavar="NAME", type=Utf8(), help="The member's name.")
@click.option("--address", metavar="ADDR", type=Address(), help="Where other members will dial it.")
def restore(
    file: Path, data_dir: Path, config: Path | None, name: str | None, address: str | None
) -> None:
    """Make a new cluster of one member from the backup FILE. Needs no agent.

    Cluster and member get new ids, so nobody of the old cluster is taken for one of it. Keys keep
    their revisions; new ones begin after all that the old cluster can have given out. Start the
    agent on DIR afterwards, and add the others with: raftctl join NAME ADDR
    """
    from raft_agent.backup import restore as make_data_dir  # noqa: PLC0415  (not for --help)

    context = current()
    if config is not None:
        name, address = _from_config(context, config, data_dir, name, address)
    if not name or not address:
        raise click.UsageError("Give the member's --name and --address, or its --config")
    with _backup_errors():
        made = make_data_dir(file, data_dir, name, address)
    text = (
        f"{context.out.mark(True)} Cluster {made.cluster_id} is in {printable(made.data_dir)}: "
        f"{printable(name)} at {printable(address)} is its only member\n"
        f"  Start its agent there, then add others: raftctl --node {printable(name)} join NAME ADDR"
    )
    context.out.result(text, made)


def _from_config(
    context: Context, path: Path, data_dir: Path, name: str | None, address: str | None
) -> tuple[str, str]:
    """What the options leave open, as the member's raft.toml has it."""
    from raft_agent.config import ConfigError, load  # noqa: PLC0415  (not for --help)

    try:
        config = load(path)
        found = name or config.server.node_id, address or config.advertise_address()
    except ConfigError as error:
        raise CommandError(
            f"The configuration is refused: {error}",
            hint="Correct it, or give --name and --address in its place",
        ) from error
    if data_dir.resolve() != Path(config.server.data_dir).resolve():
        context.out.note(
            f"Warning: an agent with {printable(str(path))} does not look there: its "
            f"server.data_dir is {printable(config.server.data_dir)}"
        )
    return found
