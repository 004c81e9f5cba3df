"""To whom a leader hands over when its disk hangs."""

from __future__ import annotations

import pytest

from raft_agent.consensus.types import (
    AppendReply,
    Effect,
    HeartbeatReply,
    Refused,
    TimeoutNow,
    TimerExpired,
    TransferLeadership,
)
from tests.unit.consensus.harness import Cluster
from tests.unit.consensus.server import (
    HEARTBEAT_US,
    MAX_TIMEOUT_US,
    MIN_TIMEOUT_US,
    SETTINGS,
    Server,
    notes,
    of,
    sends,
)


def stalled(
    *, has_entry: tuple[int, ...], heard_ago_us: dict[int, int], also_proposed: bool = False
) -> tuple[Server, list[Effect]]:
    """The leader 1 of five has waited too long for its disk; who has its entry, and how long ago
    the others were heard."""
    cluster = Cluster(5)
    node = cluster.elect(1)
    server = cluster[1]
    server.writes = False
    server.propose()
    if also_proposed:
        server.propose(b"later")
    now_us = server.now_us + SETTINGS.disk_stall_us + 1
    for peer, ago_us in sorted(heard_ago_us.items(), key=lambda known: -known[1]):
        server.now_us = now_us - ago_us
        session = node.progress[peer].session
        if peer in has_entry:
            server.receive(peer, AppendReply(2, 1, session, True, 3, 0, 0))
        else:
            server.receive(peer, HeartbeatReply(2, 1, session, 0))
    server.now_us = now_us
    return server, server.step(TimerExpired())


ALL_HEARD = {2: 0, 3: 0, 4: 0, 5: 0}


def heirs(effects: list[Effect]) -> list[int]:
    return [peer for peer in (2, 3, 4, 5) if sends(TimeoutNow, effects, to=peer)]


@pytest.mark.parametrize("heir", [2, 3, 4, 5])
def test_the_heir_has_on_its_disk_what_the_leaders_hangs_on(heir: int) -> None:
    _, effects = stalled(has_entry=(heir,), heard_ago_us=ALL_HEARD)
    assert heirs(effects) == [heir]


@pytest.mark.parametrize("heir", [2, 3])
def test_of_equals_the_heir_was_heard_last(heir: int) -> None:
    heard = {**ALL_HEARD, 2: 9, 3: 9, 4: 9, 5: 9, heir: 5}
    _, effects = stalled(has_entry=(2, 3, 4, 5), heard_ago_us=heard)
    assert heirs(effects) == [heir]


@pytest.mark.parametrize(
    ("ago_us", "is_heir"), [(MIN_TIMEOUT_US, True), (MIN_TIMEOUT_US + 1, False)]
)
def test_the_heir_was_heard_within_an_election_timeout(ago_us: int, is_heir: bool) -> None:
    _, effects = stalled(has_entry=(2,), heard_ago_us={**ALL_HEARD, 2: ago_us})
    assert heirs(effects) == ([2] if is_heir else [])
    assert ("disk_stalls" in notes(effects)) == is_heir


def test_what_the_disk_hangs_on_counts_and_not_what_waits_behind_it() -> None:
    """The heir gets the rest before it stands."""
    server, effects = stalled(has_entry=(2,), heard_ago_us=ALL_HEARD, also_proposed=True)
    assert "transfer_started" in notes(effects)
    assert not heirs(effects)
    session = server.node.progress[2].session
    assert heirs(server.receive(2, AppendReply(2, 1, session, True, 4, 0, 0))) == [2]


def test_a_hand_over_that_somebody_asked_for_goes_on() -> None:
    cluster = Cluster(3)
    node = cluster.elect(1)
    server = cluster[1]
    server.writes = False
    server.propose()
    server.now_us += SETTINGS.disk_stall_us + 1
    for peer in (2, 3):
        session = node.progress[peer].session
        server.receive(peer, HeartbeatReply(2, 1, session, 0))
    server.step(TransferLeadership(7, 2))
    for peer in (3,):
        server.receive(peer, AppendReply(2, 1, node.progress[peer].session, True, 3, 0, 0))
    effects = server.step(TimerExpired())
    assert "disk_stalls" not in notes(effects)
    assert node.state.leadership is not None
    assert node.state.leadership.transfer is not None
    assert node.state.leadership.transfer.target == 2


def test_a_hand_over_that_nobody_asked_for_fails_without_a_word_to_anybody() -> None:
    server, effects = stalled(has_entry=(2,), heard_ago_us=ALL_HEARD)
    assert heirs(effects) == [2]
    for _ in range(MAX_TIMEOUT_US // HEARTBEAT_US + 1):
        for peer in ALL_HEARD:
            session = server.node.progress[peer].session
            server.receive(peer, HeartbeatReply(2, 1, session, 0))
        effects += server.tick()
    assert "transfer_failed" in notes(effects)
    assert not of(Refused, effects)
