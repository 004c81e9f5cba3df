"""When `raftctl lease keepalive --follow` asks, on a clock that the test sets."""

from __future__ import annotations

from itertools import pairwise

import pytest
from click.testing import CliRunner

from raft_agent.api import protocol
from raftctl import lease
from raftctl.context import Context
from raftctl.errors import NOT_REACHABLE, CommandError
from raftctl.main import cli

TTL_S = 10.0


class Clock:
    """An agent whose answers come at once, but for those of `mute`, by their number: these take as
    long as the client has patience. `asked_at`: when it was asked, in seconds."""

    def __init__(self, mute: set[int], asks: int) -> None:
        self.now_s = 0.0
        self.asked_at: list[float] = []
        self._mute = mute
        self._asks = asks

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def keep(self, context: Context, lease_id: int) -> protocol.LeaseResult:
        self.asked_at.append(self.now_s)
        if len(self.asked_at) == self._asks:
            raise KeyboardInterrupt
        if len(self.asked_at) in self._mute:
            self.now_s += context.timeout_s
            raise CommandError("the agent does not answer", NOT_REACHABLE)
        return protocol.LeaseResult(lease_id, int(TTL_S * 1000))


def followed(monkeypatch: pytest.MonkeyPatch, mute: set[int], asks: int) -> list[float]:
    clock = Clock(mute, asks)
    monkeypatch.setattr(lease, "time", clock)
    monkeypatch.setattr(lease, "_keep", clock.keep)
    done = CliRunner().invoke(cli, ["--timeout", "5", "lease", "keepalive", "1", "--follow"])
    assert done.exit_code == 0, done.output
    return clock.asked_at


def test_a_lease_is_kept_three_times_in_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert followed(monkeypatch, set(), 4) == pytest.approx([0, 10 / 3, 20 / 3, 10])


def test_after_a_passing_failure_there_is_another_try_before_the_lease_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked_at = followed(monkeypatch, {2}, 4)
    assert asked_at[2] < TTL_S
    assert asked_at[3] - asked_at[2] == pytest.approx(TTL_S / 3)  # it was kept: no hurry any more


def test_failure_upon_failure_is_tried_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_at = followed(monkeypatch, {2, 3, 4}, 5)
    pauses = [after - before for before, after in pairwise(asked_at[1:])]
    assert max(pauses) < TTL_S / 3 + 1
