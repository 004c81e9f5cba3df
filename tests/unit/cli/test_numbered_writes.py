"""Writes whose answers are lost are sent again, and applied once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from raft_agent.machine.commands import Put
from tests.unit.cli.served import TIMEOUT_S, Follower, Served, json_of, raftctl


def until(served: Served, is_so: Callable[[], bool]) -> None:
    """Asks the server's loop until it is so."""
    give_up_at = time.monotonic() + TIMEOUT_S
    while not served.call(is_so):
        assert time.monotonic() < give_up_at


def lose_the_answer(served: Served) -> None:
    """Waits for a write that is held back, applies it, and lets nobody hear of that."""
    host = served.host
    until(served, lambda: bool(host.waiting_commands))

    def apply() -> None:
        host.apply_commands(host.waiting_commands)
        host.forget_waiting()

    served.call(apply)
    served.stop()
    host.hold_back = False


WRITES = [
    (("propose", "put", "k", "v"), {"index": 2, "revision": 2}),
    (("propose", "put", "k", "v", "--if-revision", "1"), {"index": 2, "revision": 2}),
    (("propose", "delete", "k"), {"index": 2, "revision": 2, "deleted": 1}),
    (("send", "text"), {"index": 2, "revision": 1}),
]


@pytest.mark.parametrize(("command", "answer"), WRITES, ids=" ".join)
def test_a_write_whose_answer_is_lost_is_applied_once_and_answered(
    served: Served, at: tuple[str, str], command: tuple[str, ...], answer: dict[str, int]
) -> None:
    """A second application would answer with other numbers, with a conflict, or with no key."""
    served.call(served.host.apply_commands, [Put("k", b"first", -1)])
    served.host.hold_back = True
    with Follower(*at, "--timeout", "20", "-o", "json", *command) as write:
        lose_the_answer(served)
        served.start()
        data = json.loads(write.line())
        assert (write.process.wait(TIMEOUT_S), data) == (0, data | answer)
    assert served.host.machine.revision == answer["revision"]
    assert len(json_of_messages(at)) == (command[0] == "send")


def json_of_messages(at: tuple[str, str]) -> list[bytes]:
    return raftctl(*at, "-o", "json", "messages").stdout.splitlines()


def test_a_write_that_lost_its_answer_and_finds_nobody_again_has_exit_status_3(
    served: Served, at: tuple[str, str]
) -> None:
    served.host.hold_back = True
    with Follower(*at, "--timeout", "1", "-o", "json", "send", "text") as send:
        lose_the_answer(served)
        data = json.loads(send.line())
        assert (send.process.wait(TIMEOUT_S), data["code"]) == (3, "unknown_outcome")


def test_a_refusal_of_the_second_copy_alone_leaves_the_outcome_open(
    served: Served, at: tuple[str, str]
) -> None:
    served.host.hold_back = True
    with Follower(*at, "--timeout", "1", "-o", "json", "send", "text") as send:
        lose_the_answer(served)
        served.host.leader = None
        served.start()
        data = json.loads(send.line())
        assert (send.process.wait(TIMEOUT_S), data["code"]) == (3, "unknown_outcome")


def test_a_conflict_is_certain_although_an_answer_was_lost(
    served: Served, at: tuple[str, str]
) -> None:
    served.host.hold_back = True
    command = ("propose", "put", "k", "v", "--if-revision", "7")
    with Follower(*at, "--timeout", "20", "-o", "json", *command) as put:
        lose_the_answer(served)
        served.start()
        data = json.loads(put.line())
        assert (put.process.wait(TIMEOUT_S), data["code"]) == (1, "conflict")


@pytest.mark.parametrize("hours", [-100_000, -1, 1, 100_000])
def test_a_clock_that_differs_from_the_clusters_hinders_no_write(
    served: Served, at: tuple[str, str], hours: int
) -> None:
    served.host.time_ms += hours * 3_600_000
    assert raftctl(*at, "propose", "put", "k", "v").returncode == 0
    assert json_of(raftctl(*at, "-o", "json", "propose", "get", "k"))["version"] == 1


def test_without_a_leader_nothing_is_tried_again(served: Served, at: tuple[str, str]) -> None:
    """The time-out is longer than this test may take."""
    served.host.leader = None
    assert raftctl(*at, "--timeout", "1000", "--forward", "send", "x").returncode == 6
    served.host.leader = "node-02"
    assert raftctl(*at, "--timeout", "1000", "send", "x").returncode == 1
