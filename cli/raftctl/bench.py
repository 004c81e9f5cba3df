"""`raftctl bench`: how many writes or reads a second, and how long they take."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from raftctl.context import Context, current
from raftctl.errors import EXIT_FAILED, EXIT_INTERRUPTED, CommandError
from raftctl.framework import RaftGroup
from raftctl.quantities import Seconds, Whole
from raftctl.sockets import find_socket, nodes_at_hand

if TYPE_CHECKING:
    from raft_agent.api.endpoint import Endpoint
    from raft_agent.api.protocol import StatusResult
    from raftctl.bench_requests import Plan
    from raftctl.bench_stats import Tally

_SPARE_FILES = 64
_PRELOAD_BATCH = 64
_PRELOAD_BATCH_BYTES = 4 << 20


@click.group(
    cls=RaftGroup,
    examples="""
    raftctl --node node-01 bench put --clients 1000 --pipeline 1
    raftctl --node node-01 -o json bench get --clients 8 --pipeline 128
    """,
)
def bench() -> None:
    """Measure writes and reads a second, and their latency.

    Each client is a connection with a fixed number of requests in flight, on this machine. Latency
    counts from when a request could have been sent, or with --rate from when it was due. Errors and
    unknown outcomes are counted over the whole run, the rest after the warm-up. Ctrl+C ends the run
    early and shows what was measured so far (exit status 130).

    The keys it stores start with bench/. They stay, as do the messages it sends: bench deletes
    nothing.
    """


def _load_options(command: Callable[..., None]) -> Callable[..., None]:
    size = Whole(high=1 << 20)
    options: list[tuple[str, dict[str, Any]]] = [
        ("--clients", {"type": Whole(high=1_000_000), "default": 16, "help": "Connections."}),
        (
            "--pipeline",
            {
                "type": Whole(high=16_384),
                "default": 1,
                "help": "Requests in flight on each connection.",
            },
        ),
        ("--key-size", {"type": Whole(8, 4096), "default": 16, "help": "Bytes."}),
        ("--value-size", {"type": size, "default": 256, "help": "Bytes."}),
        (
            "--keys",
            {"type": Whole(high=10_000_000), "default": 10_000, "help": "How many different keys."},
        ),
        (
            "--duration",
            {
                "type": Seconds(),
                "default": 10.0,
                "help": "Measured seconds.",
            },
        ),
        (
            "--warmup",
            {
                "type": Seconds(zero=True),
                "default": 2.0,
                "help": "Seconds before the measured ones.",
            },
        ),
        (
            "--rate",
            {
                "type": Whole(high=10_000_000),
                "help": "Requests a second of all clients together, sent whether the answers come "
                "in time or not; latency counts from when each was due.  [default: as many as are "
                "answered]",
            },
        ),
        (
            "--processes",
            {"type": Whole(high=1024), "default": 1, "help": "Processes that share the clients."},
        ),
    ]
    for name, settings in reversed(options):
        command = click.option(name, show_default="default" in settings, **settings)(command)
    return command


def _plan(op: str, consistency: str, options: dict[str, Any]) -> Plan:
    from raftctl.bench_requests import Plan, smallest_key_size  # noqa: PLC0415

    smallest = smallest_key_size(options["keys"])
    if op != "send" and options["key_size"] < smallest:
        raise click.UsageError(
            f"{options['keys']} different keys need --key-size {smallest} or more"
        )
    if options["processes"] > options["clients"]:
        raise click.UsageError("--processes can't be more than --clients")
    context = current()
    return Plan(
        op=op,
        clients=options["clients"],
        pipeline=options["pipeline"],
        key_size=options["key_size"],
        value_size=options["value_size"],
        keys=options["keys"],
        duration_s=options["duration"],
        warmup_s=options["warmup"],
        timeout_s=context.timeout_s,
        forward=context.forward,
        consistency=consistency,
        rate=float(options["rate"] or 0),
    )


@bench.command(
    action="bench put",
    examples="""
    raftctl --node node-01 bench put --clients 1000 --pipeline 1
    raftctl --node node-01 -o json bench put --clients 8 --pipeline 128 --value-size 1024
    """,
)
@_load_options
def put(**options: Any) -> None:
    """Store values under keys that start with bench/, and leave them there."""
    _bench(_plan("put", "linearizable", options), options["processes"])


@bench.command(
    action="bench get",
    examples="""
    raftctl --node node-01 bench get --clients 64
    raftctl --node node-03 bench get --clients 64 --consistency stale
    """,
)
@_load_options
@click.option(
    "--consistency",
    type=click.Choice(["linearizable", "lease", "stale"]),
    default="linearizable",
    show_default=True,
    help="As in propose get.",
)
def get(consistency: str, **options: Any) -> None:
    """Read keys that start with bench/; they are stored first, and left there."""
    _bench(_plan("get", consistency, options), options["processes"])


@bench.command(
    action="bench send",
    examples="raftctl --node node-01 bench send --clients 64 --value-size 100",
)
@_load_options
def send(**options: Any) -> None:
    """Send messages of --value-size letters, and leave them there."""
    _bench(_plan("send", "linearizable", options), options["processes"])


def _bench(plan: Plan, processes: int) -> None:
    context = current()
    node, at = _choose_agent(context, plan.writes and not plan.forward)
    _raise_file_limit(-(-plan.clients // processes) + _SPARE_FILES)
    if plan.op == "get":
        _preload(at, plan)
    context.out.note(
        f"{plan.op} on {node}: {plan.clients} clients, {plan.pipeline} in flight each,"
        f" {plan.warmup_s:g} s warm-up, {plan.duration_s:g} s measured..."
    )
    target = at.target()
    if processes == 1:
        tally = _run_alone(plan, target)
    else:
        from raftctl.bench_processes import run_processes  # noqa: PLC0415

        tally = run_processes(plan, target, processes)
    from raftctl.bench_result import result_data, result_text  # noqa: PLC0415

    data = result_data(plan, tally, node, processes)
    context.out.result(result_text(data, context.out), data)
    if tally.interrupted:
        what = "the figures are of a shorter time" if data["ops"] else "nothing was measured"
        context.out.note(f"Interrupted: {what}")
        click.get_current_context().exit(EXIT_INTERRUPTED)
    if not data["ops"]:
        click.get_current_context().exit(EXIT_FAILED)


# --- Which agent ----------------------------------------------------------------------------------


def _choose_agent(context: Context, wants_leader: bool) -> tuple[str, Context]:
    """(name, how to reach it) of the agent to load. Writes without --forward belong to the leader,
    so that one is taken when it is on this machine, or the agent given with --endpoint; without
    --node any agent here shows the way.
    """
    if context.socket is None and not context.node_was_given and not context.endpoint:
        here = nodes_at_hand()
        if context.node not in here:
            _take_any(context, here)
    status = _status_of(context)
    if not wants_leader or status.role == "leader":
        return status.node_id, context
    if not status.leader:
        raise CommandError("No leader at the moment", "no_leader", "raftctl health shows why")
    refusal = CommandError(
        "Not leader - send to leader node",
        "not_leader",
        f"Send from leader node: {status.leader}",
        status.leader,
    )
    try:
        at_leader = _at_leader(context, status)
        leader_status = _status_of(at_leader)
    except CommandError:
        raise refusal from None
    if leader_status.cluster_id != status.cluster_id or leader_status.role != "leader":
        raise refusal
    context.out.note(
        f"{status.node_id} is no leader: going to {status.leader} at "
        f"{at_leader.endpoint or at_leader.socket}"
        " (--forward loads the follower)"
    )
    return status.leader, at_leader


def _at_leader(context: Context, status: StatusResult) -> Context:
    """The leader's socket, or with --endpoint the address where members dial it. Raises
    CommandError."""
    leader = status.leader or ""
    if not context.endpoint:
        return replace(context, socket=find_socket(leader))
    address = next((item.address for item in status.members if item.name == leader), "")
    return replace(context, endpoint=address or context.endpoint)


def _take_any(context: Context, names: list[str]) -> None:
    """The first agent that answers becomes the context's node; none: it stays as it is."""
    for name in names:
        try:
            _status_of(replace(context, socket=find_socket(name)))
        except CommandError:
            continue
        context.node = name
        return


def _status_of(context: Context) -> StatusResult:
    from raft_agent.api import protocol  # noqa: PLC0415

    return context.ask(protocol.Status(id=1), protocol.StatusResult)


# --- Running --------------------------------------------------------------------------------------


def _raise_file_limit(needed: int) -> None:
    """One open file per connection. Raises CommandError when the hard limit is lower."""
    import resource  # noqa: PLC0415

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard not in (resource.RLIM_INFINITY,) and hard < needed:
        raise CommandError(
            f"{needed} open files are needed, the limit is {hard}",
            hint=f"Use fewer --clients or raise the limit: ulimit -n {needed}",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _preload(at: Context, plan: Plan) -> None:
    """Stores every key that will be read. Raises CommandError when one can't be stored."""
    from raft_agent.api import protocol  # noqa: PLC0415
    from raftctl.bench_requests import key_name  # noqa: PLC0415
    from raftctl.context import agent_errors  # noqa: PLC0415

    value = b"v" * plan.value_size
    at.out.note(f"Storing {plan.keys} keys to be read...")
    with at.client() as client, agent_errors(at.agent, writes=True):
        batch = max(1, min(_PRELOAD_BATCH, _PRELOAD_BATCH_BYTES // plan.value_size))
        for first in range(0, plan.keys, batch):
            numbers = range(first, min(first + batch, plan.keys))
            client.request_many(
                [
                    protocol.Put(
                        id=number - first + 1,
                        key=key_name(number, plan.key_size),
                        value=value,
                        forward=True,
                    )
                    for number in numbers
                ]
            )


def _run_alone(plan: Plan, target: str | Endpoint) -> Tally:
    from raftctl.bench_load import run_load  # noqa: PLC0415

    return run_load(plan, target, os.getpid(), lambda: None, None)
