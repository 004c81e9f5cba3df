"""What a watch of keys guarantees, whoever leads, whatever is compacted, wherever it goes on, and
however slowly it is read: it is ordered, unique, reliable, atomic, resumable and bookmarkable.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from raft_agent.api import key_streams, protocol
from raft_agent.machine import recent
from raft_agent.machine.commands import Put
from tests.unit.api.watching import (
    Cluster,
    Watcher,
    event_of,
    happen,
    histories,
    patterns,
    run,
    settle,
)

EXAMPLES = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SMALL_BYTES = 60

History = list[tuple[Any, ...]]
Pattern = tuple[str, bool]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """History goes soon, and few events are too many for one who does not read."""
    monkeypatch.setattr(recent, "PIECE_ITEMS", 2)
    monkeypatch.setattr(key_streams, "PUMP_BYTES", SMALL_BYTES)
    monkeypatch.setattr(key_streams, "_PUMP_ITEMS", 3)


@EXAMPLES
@given(pattern=patterns, history=histories)
def test_events_are_ordered(pattern: Pattern, history: History) -> None:
    watcher = run(pattern, history)
    revisions = [event.revision for together in watcher.given for event in together]
    assert revisions == sorted(revisions)
    places = [revision for _, revision in watcher.log]
    assert places == sorted(places)


@EXAMPLES
@given(pattern=patterns, history=histories)
def test_no_event_comes_twice(pattern: Pattern, history: History) -> None:
    watcher = run(pattern, history)
    events = [(event.revision, event.key) for together in watcher.given for event in together]
    assert len(events) == len(set(events))
    assert len(watcher.bookmarks) == len(set(watcher.bookmarks))


@EXAMPLES
@given(pattern=patterns, history=histories)
def test_no_event_is_missing_or_made_up(pattern: Pattern, history: History) -> None:
    """Up to the end of the log, but for what it was told that it has to read anew."""
    watcher = run(pattern, history)
    given_events = [event for together in watcher.given for event in together]
    expected = [
        event_of(change, more=place < len(together) - 1)
        for together in watcher.expected()
        for place, change in enumerate(together)
    ]
    assert given_events == expected
    changes = watcher.cluster.changes(watcher.position, watcher.cluster.truth.revision)
    assert [change for change in changes if watcher.matches(change.key)] == []


@EXAMPLES
@given(pattern=patterns, history=histories)
def test_a_revision_comes_whole_or_not_at_all(pattern: Pattern, history: History) -> None:
    watcher = run(pattern, history)
    revisions = [{event.revision for event in together} for together in watcher.given]
    assert all(len(of_one) == 1 for of_one in revisions)
    for together in watcher.given:
        revision = together[0].revision
        changes = watcher.cluster.changes(revision - 1, revision)
        assert [event.key for event in together] == [
            change.key for change in changes if watcher.matches(change.key)
        ]
    assert all(one != other for one, other in pairwise(revisions))


@EXAMPLES
@given(pattern=patterns, history=histories, others=histories)
def test_a_watch_goes_on_anywhere_as_if_it_had_never_been_interrupted(
    pattern: Pattern, history: History, others: History
) -> None:
    """One is interrupted after everything that happens, and turns to the next member; another one
    stays where it is: where neither was told to read anew, both have seen the same."""
    cluster = Cluster()
    steady, restless = Watcher(cluster, *pattern), Watcher(cluster, *pattern)
    steady.connect(0)
    for place, happening in enumerate(history + others):
        if happening[0] in ("commit", "apply", "elect", "install"):
            happen(cluster, steady, happening)
        elif happening[0] == "read":
            steady.read_all()
        restless.connect(place % len(cluster.members))
        restless.read(1 + place % 3)
    settle(cluster, steady)
    settle(cluster, restless)
    if not steady.compacted and not restless.compacted:
        assert restless.given == steady.given


@EXAMPLES
@given(pattern=patterns, history=histories)
def test_a_bookmark_says_that_all_before_it_was_told(pattern: Pattern, history: History) -> None:
    watcher = run(pattern, history)
    told = 0
    for kind, revision in watcher.log:
        if kind == "bookmark":
            missing = [
                change
                for change in watcher.cluster.changes(told, revision)
                if watcher.matches(change.key)
            ]
            assert missing == []
        told = revision
    # The last one brings even a watch of what never changes to the end of the log.
    assert watcher.position == watcher.cluster.truth.revision


@EXAMPLES
@given(pattern=patterns, history=histories)
def test_who_does_not_read_fills_no_memory(pattern: Pattern, history: History) -> None:
    """More than the limit by one revision at most: at that time it still had room."""
    watcher = Watcher(Cluster(), *pattern)
    watcher.connect(0)
    largest = 0
    for happening in history:
        if happening[0] not in ("connect", "disconnect", "restart"):
            happen(watcher.cluster, watcher, happening)
        if watcher.caller is not None:
            largest = max(largest, watcher.caller.most_unread)
    batch_bytes = 4 * 4 * 200
    assert largest <= SMALL_BYTES + batch_bytes


def test_a_watch_of_a_quiet_key_outlives_compaction_by_its_bookmarks() -> None:
    cluster = Cluster()
    watcher = Watcher(cluster, "quiet", False)
    watcher.connect(0)
    for round_ in range(1, 6):
        cluster.commit([Put("loud", b"") for _ in range(10)])
        for number in range(len(cluster.members)):
            cluster.apply(number, 9)
        watcher.ring()
        watcher.read_all()
        watcher.connect(round_ % len(cluster.members))
    assert cluster.members[0].machine.compacted_revision > 0
    assert watcher.compacted == 0
    assert watcher.bookmarks == [10, 20, 30, 40, 50]


def test_a_watch_that_has_to_wait_lacks_only_what_came_since() -> None:
    """What did not concern it before may be gone from the history."""
    cluster = Cluster()
    watcher = Watcher(cluster, "quiet", False)
    watcher.connect(0)
    cluster.commit([Put("loud", b"") for _ in range(40)])
    cluster.apply(0, 1)
    assert cluster.members[0].machine.compacted_revision > 0
    assert watcher.caller is not None
    # Another stream of this connection has filled it.
    other = protocol.KeyEvent("put", "other", b"", 40, 40)
    watcher.caller.unread.append((other, SMALL_BYTES))
    cluster.commit([Put("quiet", b"")])
    cluster.apply(0, 1)
    assert len(watcher.caller.unread) == 1
    watcher.caller.unread.clear()
    watcher.read(1)
    watcher.read(1)
    assert watcher.compacted == 0
    assert watcher.position == 41
