"""`raftctl top`: what it shows, and what it says when it can't."""

from __future__ import annotations

import importlib.util
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from rich.console import Console

from raft_agent.api import protocol
from raft_agent.histogram import BUCKETS, Histogram
from raftctl.main import cli
from raftctl.top_look import Look
from raftctl.top_rates import Rates, percentile
from raftctl.top_view import picture
from tests.unit.api.single_node import SingleNode
from tests.unit.cli.served import Follower, Served, json_of, raftctl, serving


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path / "s") as agent:
        yield agent


def vitals(second: int, *, commit_index: int = 0, commits_us: tuple[int, ...] = ()) -> object:
    histogram = Histogram()
    for duration_us in commits_us:
        histogram.add(duration_us)
    nothing = protocol.Latency([0] * BUCKETS, 0)
    return msgspec.structs.replace(
        SingleNode().vitals(),
        time=f"2026-01-01T00:00:{second:02}.000Z",
        commit_index=commit_index,
        latencies={
            "commit": protocol.Latency(histogram.buckets, histogram.sum_us),
            "fsync": nothing,
            "wire": nothing,
            "loop_lag": nothing,
        },
    )


def drawn(look: Look, rates: Rates, width: int = 110) -> str:
    console = Console(file=io.StringIO(), width=width, no_color=True)
    console.print(picture(look, rates, 3))
    return console.file.getvalue()  # type: ignore[attr-defined]


def look_at(host: SingleNode, **more: str) -> Look:
    return Look(host.status(), host.health(), host.vitals(), host.recent_events(50), **more)


def test_it_shows_members_log_latencies_and_events(served: Served) -> None:
    served.host.have_voter("node-02")
    served.call(served.host.happen, "leader_elected")
    done = raftctl(
        "--socket", str(served.path), "top", "--once", "--interval", "100", COLUMNS="120"
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    assert "node-01 leads" in text
    for word in ("node-02", "follower", "healthy", "committed", "Commit", "fsync", "Loop lag"):
        assert word in text
    assert "leader_elected" in text
    assert "\x1b[" not in text


def test_it_goes_on_until_it_is_interrupted(served: Served) -> None:
    with Follower("--socket", str(served.path), "top", "--interval", "100") as follower:
        while "node-01 leads" not in follower.line():
            pass
        assert follower.interrupt() == 0


def test_programs_get_an_object_a_line(served: Served) -> None:
    done = raftctl("--socket", str(served.path), "-o", "json", "top", "--once")
    data = json_of(done)
    assert data.keys() == {"status", "health", "vitals"}
    assert data["vitals"]["latencies"].keys() == {"commit", "fsync", "wire", "loop_lag"}


def test_without_rich_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich", None)
    done = CliRunner().invoke(cli, ["--socket", "/nowhere", "top"])
    assert done.exit_code == 1
    # The program's own interpreter: another pip would install it where it is not looked for.
    assert f"{sys.executable} -m pip install rich" in done.stderr


def test_without_an_agent_it_fails_like_every_command() -> None:
    done = raftctl("--socket", "/nowhere", "top")
    assert done.returncode == 5
    assert b"not reachable" in done.stderr


def test_a_lost_agent_is_said_in_front_of_what_was_seen_last() -> None:
    text = drawn(look_at(SingleNode(), lost="connection refused"), Rates())
    assert text.startswith("● no contact (connection refused), trying again")
    assert "node-01" in text


def test_nobody_leads_is_said() -> None:
    host = SingleNode()
    host.leader = None
    assert "nobody leads" in drawn(look_at(host), Rates())


def test_names_and_texts_are_no_markup() -> None:
    host = SingleNode("[red]x\x1b[31m")
    host.happen("[bold]kind[/bold]")
    text = drawn(look_at(host), Rates())
    assert "[red]x" in text
    assert "[bold]kind[/bold]" in text
    assert "\x1b" not in text


def test_rates_are_between_two_looks() -> None:
    rates = Rates()
    rates.add(vitals(0, commit_index=10, commits_us=(900,)))
    assert list(rates.columns) == []
    rates.add(vitals(2, commit_index=30, commits_us=(900, 900, 3_000)))
    assert rates.committed_per_s() == [10.0]
    buckets, seconds = rates.recent("commit")
    assert (sum(buckets), seconds) == (2, 2.0)


def test_rates_begin_anew_with_the_agent() -> None:
    rates = Rates()
    rates.add(vitals(0, commit_index=10, commits_us=(900, 900)))
    later = msgspec.structs.replace(vitals(5), started="2026-01-01T00:00:03.000Z")
    rates.add(later)
    assert rates.committed_per_s() == []


@pytest.mark.parametrize(
    ("durations_us", "share", "low", "high"),
    [((100,) * 99 + (5_000,), 0.5, 64, 128), ((100,) * 90 + (5_000,) * 10, 0.99, 4_096, 8_192)],
)
def test_a_percentile_lies_in_its_bucket(
    durations_us: tuple[int, ...], share: float, low: int, high: int
) -> None:
    histogram = Histogram()
    for duration_us in durations_us:
        histogram.add(duration_us)
    found = percentile(histogram.buckets, share)
    assert found is not None
    assert low < found <= high


def test_nothing_has_no_percentile() -> None:
    assert percentile([0] * BUCKETS, 0.5) is None
    assert percentile([], 0.99) is None


def test_without_rich_and_pip_it_names_what_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """The playbooks' releases and the images have no pip."""
    for name in [name for name in sys.modules if name.split(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    done = CliRunner().invoke(cli, ["--socket", "/nowhere", "top"])
    assert done.exit_code == 1
    assert "pip" not in done.stderr
    assert "raftctl --socket /nowhere -o json top" in done.stderr
    assert "--endpoint HOST:PORT" in done.stderr
