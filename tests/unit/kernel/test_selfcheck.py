"""A program that does not see what the sockets get is found out, and only then."""

from __future__ import annotations

from raft_agent.kernel.selfcheck import Seen, SelfCheck

PEER = 2


def look(check: SelfCheck, socket_bytes: int, kernel_bytes: int, connection: str = "a") -> set[int]:
    return check.look([Seen(connection, PEER, socket_bytes, kernel_bytes)])


def test_equal_counts_are_fine() -> None:
    check = SelfCheck()
    assert [look(check, n * 5000, n * 5000) for n in range(5)] == [set()] * 5


def test_bytes_that_were_never_counted_are_noticed_at_the_second_look() -> None:
    check = SelfCheck()
    assert [look(check, n * 5000, 0) for n in range(4)] == [set(), set(), {PEER}, {PEER}]


def test_what_came_before_the_program_was_attached_does_not_count() -> None:
    check = SelfCheck()
    assert [look(check, 90_000 + n * 5000, n * 5000) for n in range(5)] == [set()] * 5


def test_packets_that_show_again_end_the_finding() -> None:
    check = SelfCheck()
    for n in range(4):
        look(check, n * 5000, 0)
    assert look(check, 20_000, 5000) == set()


def test_a_quiet_connection_says_nothing_and_takes_nothing_back() -> None:
    check = SelfCheck()
    assert [look(check, n * 100, 0) for n in range(5)] == [set()] * 5
    for n in range(1, 4):
        look(check, n * 5000, 0)
    assert look(check, 15_010, 0) == {PEER}


def test_small_amounts_add_up() -> None:
    """A follower that gets a heartbeat now and then is not blind for ever."""
    check = SelfCheck()
    found = [look(check, n * 200, 0) for n in range(12)]
    assert found[-1] == {PEER}


def test_retransmissions_make_the_programs_count_larger() -> None:
    check = SelfCheck()
    assert [look(check, n * 5000, n * 9000) for n in range(5)] == [set()] * 5


def test_a_new_connection_from_the_same_port_begins_anew() -> None:
    check = SelfCheck()
    for n in range(4):
        look(check, n * 5000, 0)
    assert look(check, 100, 0) == set()


def test_counts_that_began_anew_are_no_finding() -> None:
    """The map forgets the connection that was quiet for longest."""
    check = SelfCheck()
    assert [
        look(check, n * 5000, counted) for n, counted in enumerate([9000, 0, 5000, 10_000])
    ] == [set()] * 4


def test_one_hidden_connection_of_several_is_enough() -> None:
    check = SelfCheck()
    found = set()
    for n in range(4):
        found = check.look([Seen("a", 2, n * 5000, n * 5000), Seen("b", 3, n * 5000, 0)])
    assert found == {3}
