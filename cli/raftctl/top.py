"""`raftctl top`."""

from __future__ import annotations

import importlib.util
import shlex
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from raft_agent.api import protocol
from raftctl.context import Context, agent_errors, current
from raftctl.errors import CommandError
from raftctl.framework import RaftCommand
from raftctl.quantities import Whole
from raftctl.status import status_data
from raftctl.top_look import Look
from raftctl.top_rates import Rates

if TYPE_CHECKING:
    from rich.console import RenderableType

_EVENTS = 50
# Lines of the picture besides its members and events, with the frames.
_OTHER_LINES = 20
_LEAST_EVENTS = 3


@click.command(
    cls=RaftCommand,
    action="watch the cluster",
    examples="""
    raftctl --node node-01 top
    raftctl --node node-01 top --once
    raftctl --node node-01 -o json top --interval 5000
    """,
)
@click.option(
    "--interval",
    "interval_ms",
    type=Whole(100, 3_600_000),
    default=1000,
    show_default=True,
    metavar="MS",
    help="How often to look.",
)
@click.option("--once", is_flag=True, help="Look for one interval, print it, and end.")
def top(interval_ms: int, once: bool) -> None:
    """Watch the cluster live: members, log, latencies, events. Ctrl+C ends it.

    What the status page shows, in a terminal. With -o json or yaml, one JSON object a line: status,
    health and vitals.
    """
    context = current()
    interval_s = interval_ms / 1000
    try:
        if context.out.is_text:
            _Screen(context, interval_s).run(once)
        else:
            _print_objects(context, interval_s, once)
    except KeyboardInterrupt:
        return  # the end that it is for what never ends by itself


def _look(context: Context) -> Look:
    """Ask the agent. Raises CommandError when it does not answer."""
    questions: list[protocol.Request] = [
        protocol.Status(id=1),
        protocol.Health(id=2),
        protocol.Vitals(id=3),
        protocol.Events(id=4, limit=_EVENTS),
    ]
    with context.client() as client, agent_errors(context.agent, writes=False):
        status, health, vitals, events = client.request_many(questions)
    return Look(status, health, vitals, events.events)


def _print_objects(context: Context, interval_s: float, once: bool) -> None:
    while True:
        look = _look(context)
        data = {"status": status_data(look.status), "health": look.health, "vitals": look.vitals}
        context.out.item("", data)
        if once:
            return
        time.sleep(interval_s)


def _way_out() -> str:
    """Without that library. The playbooks' releases and the images have no pip to get it with."""
    if importlib.util.find_spec("pip") is not None:
        return f"{shlex.quote(sys.executable)} -m pip install rich, or raftctl -o json top"
    return (
        "raftctl -o json top does without it. A checkout has it (tools/setup.sh demo): "
        ".venv/bin/raftctl top, with --endpoint HOST:PORT and certificates from another machine"
    )


class _Screen:
    """Looks at the agent again and again, and draws what it says. Raises CommandError without the
    library that draws."""

    def __init__(self, context: Context, interval_s: float) -> None:
        try:
            # An extra: boards without a screen do without.
            from rich.console import Console  # noqa: PLC0415
        except ImportError as missing:
            raise CommandError(
                "top draws with the library rich, which is not installed here", hint=_way_out()
            ) from missing
        self._context = context
        self._interval_s = interval_s
        self._rates = Rates()
        self._console = Console(no_color=not context.out.color, highlight=False)

    def run(self, once: bool) -> None:
        """Until Ctrl+C. Raises CommandError when the agent does not answer the first time."""
        look = self._look()
        if self._console.is_terminal and not once:
            self._follow(look)
            return
        while True:  # into a file or a pipe one after the other
            time.sleep(self._interval_s)
            self._console.print(self._picture(self._look()))
            if once:
                return

    def _follow(self, look: Look) -> None:
        from rich.live import Live  # noqa: PLC0415

        first = self._picture(look)
        with Live(first, console=self._console, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(self._interval_s)
                try:
                    look = self._look()
                except CommandError as gone:
                    look = replace(look, lost=gone.error)
                live.update(self._picture(look), refresh=True)

    def _look(self) -> Look:
        look = _look(self._context)
        self._rates.add(look.vitals)
        return look

    def _picture(self, look: Look) -> RenderableType:
        from raftctl.top_view import picture  # noqa: PLC0415

        room = self._console.height - _OTHER_LINES - len(look.health.members)
        return picture(look, self._rates, max(room, _LEAST_EVENTS))
