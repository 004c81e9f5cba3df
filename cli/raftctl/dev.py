"""`raftctl dev`: a cluster on this machine, in the background."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from raftctl.context import current
from raftctl.errors import CommandError
from raftctl.framework import RaftGroup
from raftctl.output import printable, table
from raftctl.quantities import Whole

if TYPE_CHECKING:
    from raft_agent.api.protocol import StatusResult
    from raftctl.dev_cluster import DevCluster, Form, Node

_DIR_HELP = "Where the cluster's files are (default ~/.local/state/raft-ebpf/dev)."


@click.group(
    cls=RaftGroup,
    examples="""
    raftctl dev up --nodes 3
    raftctl --node node-01 status
    raftctl dev down
    """,
)
def dev() -> None:
    """Run a cluster on this machine: agents in the background, named node-01, node-02, …"""


def _cluster(folder: str | None) -> DevCluster:
    from raftctl.dev_cluster import DevCluster, default_dir  # noqa: PLC0415

    return DevCluster(Path(folder or default_dir()).expanduser().absolute())


def _is_there(folder: Path) -> bool:
    """Raises CommandError when that can't be told."""
    try:
        folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as failure:
        raise CommandError(
            f"{folder} can't be read: {failure.strerror}",
            hint="Give another --dir, or run this as a user who may enter that one",
        ) from failure
    return True


@dev.command(
    action="start the cluster",
    examples="""
    raftctl dev up
    raftctl dev up --nodes 5 --dir /tmp/five
    raftctl dev up --http --dir /tmp/pages
    sudo raftctl dev up --isolated --ebpf
    """,
)
@click.option("--nodes", type=Whole(1, 99), metavar="N", help="How many (default 3, or as before).")
@click.option("--dir", "folder", type=click.Path(), metavar="DIR", help=_DIR_HELP)
@click.option(
    "--isolated", is_flag=True, help="A network namespace and address for every node (root)."
)
@click.option("--ebpf", is_flag=True, help="With the kernel part (root).")
@click.option(
    "--http", is_flag=True, help="Every node serves its status page and metrics on 127.0.0.1."
)
@click.option(
    "--enable-fault-injection",
    "faults",
    is_flag=True,
    help="Let raftctl fault lose packets and turn bits, at the nodes that are started now.",
)
def up(
    nodes: int | None, folder: str | None, *, isolated: bool, ebpf: bool, http: bool, faults: bool
) -> None:
    """Start a cluster and wait until it has a leader.

    A cluster that was in DIR before starts again with its data; nodes that run are left alone. If
    one of its nodes can't start and the others have a leader, these run on; the exit status is 1.

    Only one such cluster can run at a time, whatever its DIR: every cluster names its nodes
    node-01, node-02, …, and a name's socket is that of one agent.
    """
    from raftctl.dev_cluster import DEFAULT_NODES, Form  # noqa: PLC0415

    if isolated and http:
        raise click.UsageError(
            "--isolated and --http exclude each other: the pages would be in the nodes' network "
            "namespaces, out of reach"
        )
    cluster = _cluster(folder)
    context = current()
    if isolated:
        from raftctl import dev_isolated  # noqa: PLC0415

        dev_isolated.check_possible()
    if not _is_there(cluster.folder):
        # Before anything is made, so that a refusal leaves nothing behind.
        cluster.refuse_foreign_sockets(cluster.nodes(nodes or DEFAULT_NODES))
    with cluster.locked():
        is_known = cluster.form() is not None
        members, form = _members(cluster, Form(nodes or DEFAULT_NODES, isolated, ebpf, http), nodes)
        options = ("--enable-fault-injection",) if faults else ()
        statuses = _start(cluster, members, form, options, is_known=is_known)
    leader = next(status.leader for status in statuses if status.leader)
    rows = _rows(members, statuses)
    data = {"dir": str(cluster.folder), "isolated": form.isolated, "nodes": rows, "leader": leader}
    place = f" --dir {cluster.folder}" if folder else ""
    page = next((row["status_page"] for row in rows if row["name"] == leader), None)
    if form.isolated:
        page = None  # in a network namespace, out of reach
    text = [
        _table(rows),
        "",
        *_remarks(statuses),
        f"{context.out.mark(True)} {_run(len(members))} from {cluster.folder}",
        f"  Try: raftctl --node {leader} send hello",
        *([f"  See: {page}"] if page else []),
        f"  End: raftctl dev down{place}",
    ]
    context.out.result("\n".join(text), data)


def _members(cluster: DevCluster, wanted: Form, nodes: int | None) -> tuple[list[Node], Form]:
    """The nodes, with their files. `nodes`: how many were asked for. Raises CommandError when DIR
    holds another kind of cluster.
    """
    form = cluster.form()
    if form is None:
        cluster.refuse_foreign_sockets(cluster.nodes(wanted.nodes))
        return cluster.write_files(wanted), wanted
    hint = f"raftctl dev down --dir {cluster.folder}; then another --dir, or rm -r this one"
    files = f"{cluster.folder}/node-*/raft.toml"
    if nodes not in (None, form.nodes):
        held = "1 node" if form.nodes == 1 else f"{form.nodes} nodes"
        raise CommandError(f"{cluster.folder} holds a cluster of {held}", hint=hint)
    if wanted.isolated and not form.isolated:
        raise CommandError(f"{cluster.folder} holds a cluster that is not isolated", hint=hint)
    if wanted.ebpf and not form.ebpf:
        raise CommandError(
            f"{cluster.folder} holds a cluster without the kernel part",
            hint=f"{hint}; or set enabled = true under [ebpf] in {files}",
        )
    if wanted.http and not form.http:
        raise CommandError(
            f"{cluster.folder} holds a cluster without status pages",
            hint=f"{hint}; or give every node an http_addr of its own under [server] in {files}",
        )
    members = cluster.nodes(form.nodes)
    cluster.refuse_foreign_sockets(members)
    return members, form


def _start(
    cluster: DevCluster,
    members: list[Node],
    form: Form,
    options: tuple[str, ...],
    *,
    is_known: bool,
) -> list[StatusResult]:
    """`is_known`: the cluster was here before. It is not given up for some of its nodes, whose data
    may be damaged: those who are to take their place need the others.
    """
    from raftctl.dev_cluster import IncompleteError  # noqa: PLC0415

    if form.isolated:
        from raftctl import dev_isolated  # noqa: PLC0415

        dev_isolated.check_possible()
        dev_isolated.create(cluster.tag, members)
    if form.ebpf:
        from raftctl import dev_bpf  # noqa: PLC0415

        dev_bpf.mount(cluster.folder)
    out = current().out
    before = {node.name for node in members if node.pid() is not None}
    started = [node for node in members if node.name not in before]
    if started:
        out.note(f"Starting {', '.join(node.name for node in started)}...")
    else:
        out.note("All nodes run already")
    try:
        cluster.start(members, form.isolated, options)
        return cluster.wait_ready(members, is_known=is_known)
    except IncompleteError:
        raise
    except (CommandError, KeyboardInterrupt):
        cluster.stop(started)  # as it was before
        if form.isolated and not before:
            dev_isolated.remove(cluster.tag)
        raise


def _run(count: int) -> str:
    return "1 node runs" if count == 1 else f"{count} nodes run"


def _address(status: StatusResult) -> str:
    return next((m.address for m in status.members if m.name == status.node_id), "-")


def _remarks(statuses: list[StatusResult]) -> list[str]:
    return [printable(f"  {s.node_id}: {s.note}") for s in statuses if s.note] + [
        printable(f"  {s.node_id}: eBPF is {s.ebpf.state}: {s.ebpf.reason}")
        for s in statuses
        if s.ebpf.reason
    ]


def _rows(members: list[Node], statuses: list[StatusResult]) -> list[dict[str, object]]:
    return [
        {
            "name": node.name,
            "role": status.role,
            "term": status.term,
            "commit_index": status.commit_index,
            "address": _address(status),
            "socket": str(node.socket),
            "pid": node.pid(),
            "status_page": node.status_page(),
        }
        for node, status in zip(members, statuses, strict=True)
    ]


def _table(rows: list[dict[str, object]]) -> str:
    head = ("NAME", "ROLE", "TERM", "COMMIT", "ADDRESS", "SOCKET", "PID")
    names = ("name", "role", "term", "commit_index", "address", "socket", "pid")
    lines = [{**row, "role": str(row["role"]).capitalize()} for row in rows]
    return table([head, *(tuple(str(line[name]) for name in names) for line in lines)])


@dev.command(
    action="end the cluster",
    examples="""
    raftctl dev down
    raftctl dev down --dir /tmp/five
    """,
)
@click.option("--dir", "folder", type=click.Path(), metavar="DIR", help=_DIR_HELP)
def down(folder: str | None) -> None:
    """End the agents that were started from DIR. Their data stays."""
    cluster = _cluster(folder)
    out = current().out
    if not _is_there(cluster.folder):
        raise CommandError(f"There is no {cluster.folder}", hint="Start one: raftctl dev up")
    form = cluster.form()
    if form is None:
        raise CommandError(
            f"There is no cluster in {cluster.folder}", hint="Start one: raftctl dev up"
        )
    with cluster.locked():
        ended, killed = cluster.stop(cluster.nodes(form.nodes))
        if form.isolated:
            from raftctl import dev_isolated  # noqa: PLC0415

            dev_isolated.check_possible()
            dev_isolated.remove(cluster.tag)
        if form.ebpf:
            from raftctl import dev_bpf  # noqa: PLC0415

            dev_bpf.unmount(cluster.folder)
    for name in killed:
        out.note(f"{name} did not end by itself and was killed")
    text = f"{out.mark(True)} Ended {', '.join(ended)}" if ended else "Nothing ran"
    out.result(
        f"{text}\n  The data stays in {cluster.folder}",
        {"dir": str(cluster.folder), "ended": ended, "killed": killed},
    )
