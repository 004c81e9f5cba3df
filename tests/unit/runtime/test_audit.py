"""The audit keeps what was done, and no more denials than people can read."""

from __future__ import annotations

import logging

import pytest

from raft_agent.runtime.audit import DENIALS_S, MAX_DENIALS, Audit
from raft_agent.runtime.events import EventLog

DENIED = "permission_denied"


class Kept:
    """An audit on a clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.events = EventLog(str)
        self.audit = Audit(self.events, lambda: 3, lambda: self.now_s)

    def texts(self) -> list[str]:
        return [event.text for event in self.events.recent(10_000)]


def test_each_change_is_an_event_and_a_line(caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept()
    with caplog.at_level(logging.INFO, "raft.audit"):
        kept.audit.add("client alice (admin) at 192.0.2.1:4", "leave name=node-03", "done")
    [event] = kept.events.recent(10)
    assert (event.kind, event.term) == ("audit", 3)
    assert event.text == "client alice (admin) at 192.0.2.1:4: leave name=node-03: done"
    assert event.facts["outcome"] == "done"
    assert caplog.messages == [event.text]


def test_changes_are_told_however_many_there_are() -> None:
    kept = Kept()
    for _ in range(10 * MAX_DENIALS):
        kept.audit.add("somebody", "setting_set", "done")
    assert len(kept.texts()) == 10 * MAX_DENIALS


def test_whoever_is_denied_again_and_again_fills_no_log() -> None:
    kept = Kept()
    for _ in range(MAX_DENIALS + 5):
        kept.audit.add("mallory", "leave", DENIED)
    assert len(kept.texts()) == MAX_DENIALS
    kept.audit.add("alice", "leave", "done")
    assert kept.texts()[-1] == "alice: leave: done"
    kept.now_s = DENIALS_S + 1
    kept.audit.add("mallory", "leave", DENIED)
    assert kept.texts()[-1].endswith("; 5 more were denied before and not told one by one")
    kept.audit.add("mallory", "leave", DENIED)
    assert kept.texts()[-1] == f"mallory: leave: {DENIED}"
