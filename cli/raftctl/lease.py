"""`raftctl lease`: keys that end when nobody keeps them alive."""

from __future__ import annotations

import time
from dataclasses import replace

import click

from raft_agent.api import protocol
from raftctl.context import Context, current
from raftctl.errors import NOT_REACHABLE, CommandError
from raftctl.framework import RaftGroup
from raftctl.messages import write_data
from raftctl.output import printable, table
from raftctl.quantities import MAX_REVISION, LeaseSeconds, Whole

# Of the time of a lease, after so much of it `keepalive --follow` asks again.
_KEPT_ALIVE = 3
_RETRY_S = 0.2
# What may be over soon, with the lease still there.
_PASSING = frozenset({NOT_REACHABLE, "no_leader", "not_leader", "busy", "timed_out"})


@click.group(
    cls=RaftGroup,
    examples="""
    raftctl --node node-02 lease grant 30
    raftctl --node node-02 propose put service/web 10.0.0.7 --lease 7
    raftctl --node node-02 lease keepalive 7 --follow
    """,
)
def lease() -> None:
    """Grant, keep and revoke leases.

    A lease ends when it is not kept alive for its time, and the keys that were put with it end in
    the same moment. A new leader gives every lease all of its time anew.
    """


def _id_argument(command: click.decorators.FC) -> click.decorators.FC:
    return click.argument("lease_id", metavar="ID", type=Whole(high=MAX_REVISION))(command)


def _seconds(ttl_ms: int) -> str:
    return f"{ttl_ms / 1000:g} s"


def _lease_data(result: protocol.LeaseResult) -> dict[str, object]:
    return {"lease": result.lease, "ttl_ms": result.ttl_ms}


@lease.command(
    action="grant the lease",
    examples="""
    raftctl --node node-02 lease grant 30
    raftctl --node node-02 -o json lease grant 30 | jq .lease
    """,
)
@click.argument("seconds", type=LeaseSeconds())
def grant(seconds: float) -> None:
    """A lease that ends unless it is kept alive for SECONDS, from 1 to 31536000 (a year)."""
    context = current()
    request = protocol.LeaseGrant(id=1, ttl_ms=round(seconds * 1000), forward=context.forward)
    result = context.write(request, protocol.LeaseResult)
    out = context.out
    out.result(
        f"{out.mark(True)} Lease {result.lease} granted for {_seconds(result.ttl_ms)}",
        _lease_data(result),
    )


@lease.command(
    action="keep the lease alive",
    examples="""
    raftctl --node node-02 lease keepalive 7
    raftctl --node node-02 lease keepalive 7 --follow
    """,
)
@_id_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl+C, or until it has ended.")
def keepalive(lease_id: int, follow: bool) -> None:
    """Keep a lease alive: it has all of its time again."""
    context = current()
    began_s = time.monotonic()
    result = _keep(context, lease_id)
    out = context.out
    out.result(
        f"{out.mark(True)} Lease {lease_id} has {_seconds(result.ttl_ms)} from now on",
        _lease_data(result),
    )
    if not follow:
        return
    try:
        _go_on_keeping(context, lease_id, began_s, result.ttl_ms / 1000)
    except KeyboardInterrupt:
        return


def _go_on_keeping(context: Context, lease_id: int, kept_s: float, ttl_s: float) -> None:
    """Ask again and again. `kept_s`: when it was last asked with success, by time.monotonic: its
    time counts from no earlier than that."""
    often_s = ttl_s / _KEPT_ALIVE
    # Whoever waited longer for an answer would have no time left for another try.
    brief = replace(context, timeout_s=min(context.timeout_s, often_s))
    pause_s = max(kept_s + often_s - time.monotonic(), 0.0)
    while True:
        time.sleep(pause_s)
        asked_s = time.monotonic()
        try:
            _keep(brief, lease_id)
        except CommandError as failure:
            if failure.code not in _PASSING:
                raise
            context.out.note(f"{failure.error}; trying again")
            pause_s = _RETRY_S
        else:
            pause_s = max(asked_s + often_s - time.monotonic(), 0.0)


def _keep(context: Context, lease_id: int) -> protocol.LeaseResult:
    request = protocol.LeaseKeepalive(id=1, lease=lease_id, forward=context.forward)
    return context.ask(request, protocol.LeaseResult)


@lease.command(action="revoke the lease", examples="raftctl --node node-02 lease revoke 7")
@_id_argument
def revoke(lease_id: int) -> None:
    """End a lease and delete its keys, all in one moment."""
    context = current()
    request = protocol.LeaseRevoke(id=1, lease=lease_id, forward=context.forward)
    result = context.write(request, protocol.WriteResult)
    out = context.out
    keys = "1 key" if result.deleted == 1 else f"{result.deleted} keys"
    out.result(
        f"{out.mark(True)} Lease {lease_id} revoked, and {keys} deleted "
        f"(revision {result.revision})\n"
        f"  Replicated at log index {result.index}",
        {**write_data(result), "deleted": result.deleted},
    )


def _remaining(info: protocol.LeaseInfo) -> str:
    return "?" if info.remaining_ms is None else _seconds(info.remaining_ms)


@lease.command(name="list", action="list the leases", examples="raftctl --node node-01 lease list")
def list_() -> None:
    """Show all leases: the id, the time, what is left of it, and how many keys end with it."""
    context = current()
    leases = context.ask(protocol.LeaseList(id=1), protocol.LeaseListResult).leases
    if not context.out.is_text:
        data = [
            {
                "lease": info.lease,
                "ttl_ms": info.ttl_ms,
                "remaining_ms": info.remaining_ms,
                "key_count": info.key_count,
            }
            for info in leases
        ]
        context.out.result("", {"leases": data})
        return
    rows = [("ID", "TIME", "REMAINING", "KEYS")]
    for info in leases:
        rows.append((str(info.lease), _seconds(info.ttl_ms), _remaining(info), str(info.key_count)))
    context.out.result(table(rows), None)


@lease.command(action="show the lease", examples="raftctl --node node-01 lease show 7")
@_id_argument
def show(lease_id: int) -> None:
    """Show a lease: its time, what is left of it, and the keys that end with it."""
    context = current()
    info = context.ask(protocol.LeaseShow(id=1, lease=lease_id), protocol.LeaseInfo)
    if not context.out.is_text:
        context.out.result("", info)
        return
    lines = [
        f"Lease:     {info.lease}",
        f"Time:      {_seconds(info.ttl_ms)}",
        f"Remaining: {_remaining(info)}",
        f"Keys:      {info.key_count}",
        *(f"  {printable(key)}" for key in info.keys),
    ]
    context.out.result("\n".join(lines), None)
