"""What `raftctl top` shows, made of rich's parts. Names and texts are others': none is markup."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from raft_agent.api.protocol import HealthMember
from raftctl.events import event_line
from raftctl.output import printable
from raftctl.top_look import Look
from raftctl.top_rates import Rates, percentile

_STATE_STYLES = {"healthy": "green", "lagging": "yellow", "unreachable": "bold red"}
_BARS = "▁▂▃▄▅▆▇█"
# The lines of latencies stand between these, by powers of two.
_SHORTEST_US = 32
_LONGEST_US = 4 << 20

_LATENCIES = (
    ("commit", "Commit"),
    ("fsync", "Disk (fsync)"),
    ("wire", "Wire"),
    ("loop_lag", "Loop lag"),
)


def picture(look: Look, rates: Rates, event_lines: int) -> RenderableType:
    """Everything; `event_lines`: how many of the newest events."""
    parts: list[RenderableType] = [_verdict(look), _members(look), _log(look, rates)]
    parts.append(_latencies(rates))
    if event_lines > 0:
        lines = [Text(event_line(item), no_wrap=True, overflow="ellipsis") for item in look.events]
        newest = list(reversed(lines))[:event_lines]
        parts.append(_panel("Events, newest first", Group(*newest)))
    return Group(*parts)


def _panel(title: str, content: RenderableType) -> Panel:
    return Panel(content, title=title, title_align="left", border_style="dim", padding=(0, 1))


def _verdict(look: Look) -> Text:
    status, health = look.status, look.health
    leader = health.leader or status.leader
    line = Text(no_wrap=True, overflow="ellipsis")
    if look.lost:
        line.append("● no contact ", style="bold red")
        line.append(f"({printable(look.lost)}), trying again  ", style="red")
    elif leader is None:
        line.append("● nobody leads  ", style="bold red")
    elif not health.quorum:
        line.append(f"● no quorum for {printable(leader)}  ", style="bold red")
    else:
        well = all(member.state == "healthy" for member in health.members)
        line.append(f"● {printable(leader)} leads  ", style="bold green" if well else "bold yellow")
    line.append(f"term {status.term}  ")
    line.append(f"seen by {printable(status.node_id)}", style="dim")
    if status.note:
        line.append(f"  {printable(status.note)}", style="yellow")
    return line


def _members(look: Look) -> RenderableType:
    table = Table(box=SIMPLE_HEAD, expand=True, pad_edge=False)
    for title, justify in (
        ("Member", "left"),
        ("Role", "left"),
        ("State", "left"),
        ("Term", "right"),
        ("Lag", "right"),
        ("Contact", "right"),
        ("Address", "left"),
    ):
        table.add_column(title, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for member in look.health.members:
        answers = member.state != "unreachable"
        role = _role(look, member)
        table.add_row(
            Text(printable(member.name), style="bold" if role == "leader" else ""),
            Text(role, style="bold magenta" if role == "leader" else ""),
            Text(member.state, style=_STATE_STYLES.get(member.state, "red")),
            str(look.health.term) if answers else "-",
            "-" if member.lag is None else f"{member.lag:,}",
            _contact(look, member),
            Text(printable(member.detail or member.address), overflow="ellipsis"),
        )
    return table


def _role(look: Look, member: HealthMember) -> str:
    if member.name == (look.health.leader or look.status.leader):
        return "leader"
    if member.name == look.status.node_id:
        return look.status.role
    return "learner" if member.role == "learner" else "follower"


def _contact(look: Look, member: HealthMember) -> str:
    if member.name == look.status.node_id:
        return "here"
    return "-" if member.last_contact_ms is None else f"{member.last_contact_ms:,} ms"


def _log(look: Look, rates: Rates) -> RenderableType:
    vitals = look.vitals
    per_s = rates.committed_per_s()
    line = Text(no_wrap=True, overflow="ellipsis")
    for name, value in (
        ("committed", vitals.commit_index),
        ("applied", vitals.applied_index),
        ("on disk", vitals.persisted_index),
        ("last", vitals.last_index),
        ("snapshot", vitals.snapshot_index),
    ):
        line.append(f"{name} ", style="dim").append(f"{value:,}   ")
    now = f"{per_s[-1]:,.0f}/s " if per_s else "-/s "
    most = max(per_s, default=0) or 1
    graph = Text(f"{now:>10}").append(_bars([value / most for value in per_s]), style="blue")
    waiting = sum(vitals.queues.values())
    counts = "   ".join(f"{name} {count:,}" for name, count in vitals.counts.items())
    return _panel("Log", Group(line, graph, Text(f"{counts}   waiting {waiting:,}", style="dim")))


def _latencies(rates: Rates) -> RenderableType:
    table = Table(box=SIMPLE_HEAD, expand=True, pad_edge=False)
    table.add_column("Latency", no_wrap=True)
    for title in ("median", "99 %", "a second"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("99 % over time, 32 µs to 4 s", ratio=1, no_wrap=True)
    for name, title in _LATENCIES:
        buckets, seconds = rates.recent(name)
        line = [percentile(column.latencies[name], 0.99) for column in rates.columns]
        table.add_row(
            title,
            _duration(percentile(buckets, 0.5)),
            _duration(percentile(buckets, 0.99)),
            f"{sum(buckets) / seconds:,.1f}" if seconds and any(buckets) else "-",
            Text(_bars([_height(us) for us in line]), style="cyan"),
        )
    return table


def _height(us: float | None) -> float | None:
    """Where a duration stands between the shortest and the longest that are shown, 0 to 1."""
    if us is None:
        return None
    return math.log2(max(us, _SHORTEST_US) / _SHORTEST_US) / math.log2(_LONGEST_US / _SHORTEST_US)


def _bars(heights: Sequence[float | None]) -> str:
    """One character for each height of 0 to 1; None: nothing."""
    last = len(_BARS) - 1
    return "".join(
        " " if height is None else _BARS[min(round(height * last), last)] for height in heights
    )


def _duration(us: float | None) -> str:
    if us is None:
        return "-"
    for limit, unit in ((1e3, "µs"), (1e6, "ms")):
        if us < limit:
            value = us * 1e3 / limit
            return f"{value:.1f} {unit}" if value < 10 and unit != "µs" else f"{value:.0f} {unit}"
    return f"{us / 1e6:.1f} s"
