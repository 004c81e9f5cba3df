"""`raftctl fault`: lose packets or turn bits on purpose, for tests of what happens then."""

from __future__ import annotations

import click

from raft_agent.api import protocol
from raftctl.context import current
from raftctl.framework import RaftCommand, RaftGroup, Utf8
from raftctl.output import printable
from raftctl.quantities import Whole

_MAX_SECONDS = 300
_ALL = 1000


def fault_line(fault: protocol.FaultInfo) -> str:
    """ "loses 100 ‰ of what comes from node-03, 29 s more"."""
    way = "comes from" if fault.direction == "in" else "goes to"
    left_s = max(fault.ends_in_ms, 0) / 1000
    return f"loses {fault.per_mille} ‰ of what {way} {fault.peer}, {left_s:.0f} s more"


@click.group(
    cls=RaftGroup,
    examples="""
    raftctl --node node-01 fault drop node-03 --per-mille 100 --for 30
    raftctl --node node-01 fault partition node-03 --for 10
    raftctl --node node-01 fault heal
    """,
)
def fault() -> None:
    """Lose packets between the asked node and a peer, or spoil its memory, for tests.

    Only an agent that was started with --enable-fault-injection does it, and packets are lost only
    where the kernel part is attached. Every loss of packets ends by itself.
    """


def _for_option(command: click.decorators.FC) -> click.decorators.FC:
    return click.option(
        "--for",
        "seconds",
        type=Whole(1, _MAX_SECONDS),
        metavar="SECONDS",
        required=True,
        help=f"When it ends by itself, at most {_MAX_SECONDS}.",
    )(command)


def _direction_option(command: click.decorators.FC) -> click.decorators.FC:
    return click.option(
        "--direction",
        type=click.Choice(["in", "out", "both"]),
        default="both",
        show_default=True,
        help="Packets that come from the peer, that go to it, or both.",
    )(command)


@fault.command(
    cls=RaftCommand,
    action="lose packets",
    examples="raftctl --node node-01 fault drop node-03 --per-mille 100 --for 30 --direction in",
)
@click.argument("peer", type=Utf8(), metavar="PEER")
@click.option(
    "--per-mille",
    type=Whole(1, _ALL),
    metavar="N",
    required=True,
    help="How many of a thousand packets are lost.",
)
@_for_option
@_direction_option
def drop(peer: str, per_mille: int, seconds: int, direction: str) -> None:
    """Lose a share of the packets exchanged with PEER."""
    _set(peer, per_mille, seconds, direction)


@fault.command(
    cls=RaftCommand,
    action="cut the peer off",
    examples="raftctl --node node-01 fault partition node-03 --for 10",
)
@click.argument("peer", type=Utf8(), metavar="PEER")
@_for_option
@_direction_option
def partition(peer: str, seconds: int, direction: str) -> None:
    """Lose all packets exchanged with PEER."""
    _set(peer, _ALL, seconds, direction)


@fault.command(
    cls=RaftCommand,
    action="end the faults",
    examples="""
    raftctl --node node-01 fault heal
    raftctl --node node-01 fault heal node-03
    """,
)
@click.argument("peer", type=Utf8(), metavar="[PEER]", required=False, default="")
def heal(peer: str) -> None:
    """End the faults of PEER, or all of this node."""
    context = current()
    result = context.ask(protocol.FaultHeal(1, peer), protocol.FaultsResult)
    _show(result)


@fault.command(
    cls=RaftCommand,
    action="turn a bit",
    examples="raftctl --node node-03 fault flip mykey",
)
@click.argument("key", type=Utf8(), metavar="KEY")
def flip(key: str) -> None:
    """Turn one bit of the value of KEY in the asked node's memory, and nowhere else.

    The node serves the wrong value until the members compare their states.
    """
    context = current()
    context.ask(protocol.FaultFlip(1, key), type(None))
    out = context.out
    out.result(f"{out.mark(True)} One bit of {printable(key)} has turned", {"key": key})


def _set(peer: str, per_mille: int, seconds: int, direction: str) -> None:
    context = current()
    request = protocol.FaultSet(
        1, peer, per_mille, seconds * 1000, protocol.FaultDirection(direction)
    )
    _show(context.ask(request, protocol.FaultsResult))


def _show(result: protocol.FaultsResult) -> None:
    out = current().out
    lines = [printable(fault_line(one)) for one in result.faults] or ["loses nothing on purpose"]
    out.result("\n".join(f"{out.mark(True)} {line}" for line in lines), result)
