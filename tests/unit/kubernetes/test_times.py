"""What time it is: by the API server's clock, whatever this machine's says."""

from __future__ import annotations

import datetime
from email.utils import format_datetime

from raft_operator.times import ServerClock

THERE = datetime.datetime(2001, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
SECOND = datetime.timedelta(seconds=1)


class Passing:
    """A clock that nobody sets."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def heard(passing: Passing, at: datetime.datetime = THERE) -> ServerClock:
    clock = ServerClock(passing)
    clock.hear(format_datetime(at, usegmt=True))
    return clock


def test_it_goes_on_from_what_the_server_has_said() -> None:
    passing = Passing()
    clock = heard(passing)
    assert clock.now() == THERE
    passing.now_s += 90
    assert clock.now() == THERE + 90 * SECOND


def test_before_the_server_has_spoken_it_is_this_machines() -> None:
    clock = ServerClock()
    assert abs(clock.now() - datetime.datetime.now(datetime.UTC)) < 60 * SECOND


def test_a_date_that_is_merely_late_or_rounded_does_not_set_it_back() -> None:
    passing = Passing()
    clock = heard(passing)
    passing.now_s += 1.9
    clock.hear(format_datetime(THERE, usegmt=True))
    assert clock.now() == THERE + 1.9 * SECOND


def test_a_server_whose_clock_is_set_is_followed() -> None:
    passing = Passing()
    clock = heard(passing)
    for ahead in (3600, -3600):
        clock.hear(format_datetime(THERE + ahead * SECOND, usegmt=True))
        assert clock.now() == THERE + ahead * SECOND


def test_what_is_no_date_changes_nothing() -> None:
    clock = heard(Passing())
    for date in (None, "", "soon", "Mon, 99 Foo 2001 00:00:00 GMT"):
        clock.hear(date)
        assert clock.now() == THERE
