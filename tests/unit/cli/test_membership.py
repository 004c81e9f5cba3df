"""join, leave, member and settings as people call them, against a real API server."""

from __future__ import annotations

import socket
import subprocess
import threading
from pathlib import Path

import msgspec
import pytest

from raft_agent.api import protocol
from raft_agent.api.host import Failure
from raft_agent.api.protocol import ErrorCode
from tests.unit.cli.served import Follower, Served, json_of, raftctl

# What an agent gets of the five seconds that raftctl waits.
PATIENCE_MS = 3_000
ADDRESS = "127.0.0.1:5558"


def said(done: subprocess.CompletedProcess[bytes]) -> tuple[int, str, str]:
    return done.returncode, done.stdout.decode(), done.stderr.decode()


# --- join -----------------------------------------------------------------------------------------


def test_join_waits_until_the_new_member_is_a_voter(served: Served, at: tuple[str, str]) -> None:
    served.host.have_voter("node-02")
    served.host.lags["node-03"] = 40
    with Follower(*at, "join", "node-03", ADDRESS) as join:
        assert join.note() == "  node-03 has entries up to 60, 40 to go"
        served.call(served.host.have_voter, "node-03")
        assert join.line() == "✓ node-03 is a voter now"
        assert (join.line(), join.note(), join.process.wait(10)) == ("", "", 0)
    assert served.host.membership_requests == [
        (protocol.Join(1, "node-03", ADDRESS, patience_ms=PATIENCE_MS), True)
    ]


def test_progress_in_json_leaves_standard_output_to_the_result(
    served: Served, at: tuple[str, str]
) -> None:
    with Follower(*at, "-o", "json", "join", "node-02", ADDRESS) as join:
        assert join.note() == "  node-02 has entries up to 100, 0 to go"
        served.call(served.host.have_voter, "node-02")
        data = msgspec.json.decode(join.line(), type=protocol.MembershipResult)
        warning = "2 voters bear the loss of 0, no more than 1 would: add one more, or remove one"
        assert (data.note, data.warnings, data.index) == ("node-02 is a voter now", [warning], 7)
        assert [item.role for item in data.members] == ["voter", "voter"]
        assert join.note() == f"Warning: {warning}"


def test_a_join_that_is_not_waited_for_ends_at_once(served: Served, at: tuple[str, str]) -> None:
    done = raftctl(*at, "join", "node-02", ADDRESS, "--no-wait")
    assert said(done) == (0, "✓ node-02 was added as a learner\n", "")


def test_a_learner_for_good_is_not_waited_for(served: Served, at: tuple[str, str]) -> None:
    done = raftctl(*at, "join", "node-02", ADDRESS, "--learner")
    assert said(done) == (0, "✓ node-02 was added as a learner\n", "")
    request, _ = served.host.membership_requests[0]
    assert request == protocol.Join(1, "node-02", ADDRESS, learner=True, patience_ms=PATIENCE_MS)
    listed = raftctl(*at, "member", "list").stdout.decode()
    assert listed.splitlines()[-1].split() == ["node-02", "0" * 15 + "2", ADDRESS, "learner", "-"]


def test_whom_a_new_member_replaces_is_asked_for_in_the_same_step(
    served: Served, at: tuple[str, str]
) -> None:
    raftctl(*at, "join", "node-04", ADDRESS, "--replace", "node-02", "--no-wait")
    request, _ = served.host.membership_requests[0]
    assert request == protocol.Join(
        1, "node-04", ADDRESS, replace="node-02", patience_ms=PATIENCE_MS
    )
    with Follower(*at, "join", "node-04", ADDRESS, "--replace", "node-02") as join:
        assert "100" in join.note()
        served.call(served.host.have_voter, "node-04")
        assert join.line() == "✓ node-04 is a voter now, in place of node-02"
    again = raftctl(*at, "join", "node-04", ADDRESS, "--replace", "node-02")
    assert said(again)[1].splitlines()[0] == "✓ node-04 is a member already"
    with Follower(*at, "join", "node-05", ADDRESS, "--replace", "node-04") as join:
        assert "100" in join.note()
        served.call(served.host.have_voter, "node-05")
        assert join.line() == "✓ node-05 is a voter now, in place of node-04"
    both = raftctl(*at, "join", "node-06", ADDRESS, "--replace", "node-02", "--learner")
    assert both.returncode == 2
    assert "node-06" not in served.host.others


def test_joining_a_voter_again_changes_nothing_and_says_so(
    served: Served, at: tuple[str, str]
) -> None:
    served.host.have_voter("node-02")
    served.host.have_voter("node-03")
    for _ in range(2):
        done = raftctl(*at, "join", "node-02", ADDRESS)
        assert said(done) == (0, "✓ node-02 is a member already\n", "")


def test_an_even_number_of_voters_is_warned_of(served: Served, at: tuple[str, str]) -> None:
    served.host.have_voter("node-02")
    done = raftctl(*at, "join", "node-02", ADDRESS)
    assert said(done) == (
        0,
        "✓ node-02 is a member already\n"
        "  Warning: 2 voters bear the loss of 0, no more than 1 would: add one more, or remove one"
        "\n",
        "",
    )


@pytest.mark.parametrize("address", ["127.0.0.1", ":5555", "host:0", "host:x", "0.0.0.0:5555"])
def test_an_address_that_nobody_can_dial_is_wrong_usage(
    served: Served, at: tuple[str, str], address: str
) -> None:
    for command in (("join", "node-02", address), ("member", "update", "node-01", address)):
        done = raftctl(*at, *command)
        assert (done.returncode, done.stdout) == (2, b"")
    assert served.host.membership_requests == []


def test_a_member_that_goes_while_it_is_waited_for_ends_the_waiting(
    served: Served, at: tuple[str, str]
) -> None:
    with Follower(*at, "join", "node-02", ADDRESS) as join:
        assert "100" in join.note()
        served.call(served.host.others.clear)
        assert join.process.wait(10) == 1
        assert join.note() == (
            "✗ Failed to join: node-02 is no member any more: somebody has removed it"
        )


def test_a_node_that_has_not_heard_of_a_join_yet_does_not_end_the_waiting(
    served: Served, at: tuple[str, str]
) -> None:
    host = served.host
    listed = host.member_list()
    known = host.member_list
    with Follower(*at, "join", "node-02", ADDRESS) as join:
        assert "100" in join.note()
        # The leader is gone, and the node that is asked tells what it knows itself.
        older = msgspec.structs.replace(listed, configuration_index=6)
        asked = threading.Event()

        def member_list() -> protocol.MemberListResult:
            asked.set()
            return older

        served.call(setattr, host, "member_list", member_list)
        assert asked.wait(10)
        served.call(setattr, host, "member_list", known)
        served.call(host.have_voter, "node-02")
        assert join.line() == "✓ node-02 is a voter now"
        assert join.process.wait(10) == 0


def test_waiting_that_is_interrupted_does_not_say_that_nothing_changed(
    served: Served, at: tuple[str, str]
) -> None:
    with Follower(*at, "join", "node-02", ADDRESS) as join:
        assert "100" in join.note()
        assert join.interrupt() == 3
        assert join.note() == (
            "✗ Failed to join: Interrupted; node-02 is a member and becomes a voter by itself once "
            "it has caught up"
        )


def test_an_agent_that_ends_while_a_join_waits_leaves_the_outcome_open(
    served: Served, at: tuple[str, str]
) -> None:
    with Follower(*at, "-o", "json", "join", "node-02", ADDRESS) as join:
        assert "100" in join.note()
        served.stop()
        assert '"code":"unknown_outcome"' in join.line()
        assert join.process.wait(10) == 3


# --- refusals -------------------------------------------------------------------------------------

CHANGES = [
    ("join", ("join", "node-02", ADDRESS)),
    ("leave", ("leave", "node-02")),
    ("promote the member", ("member", "promote", "node-02")),
    ("update the member", ("member", "update", "node-02", ADDRESS)),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change[0])
@pytest.mark.parametrize(
    ("code", "status"),
    [
        (ErrorCode.REFUSED, 1),
        (ErrorCode.NO_SUCH_MEMBER, 1),
        (ErrorCode.QUORUM_AT_RISK, 1),
        (ErrorCode.CHANGE_PENDING, 1),
        (ErrorCode.UNKNOWN_OUTCOME, 3),
        (ErrorCode.NO_LEADER, 6),
    ],
)
def test_each_refusal_has_its_exit_status_and_words(
    served: Served,
    at: tuple[str, str],
    change: tuple[str, tuple[str, ...]],
    code: ErrorCode,
    status: int,
) -> None:
    action, command = change
    served.host.refusal = Failure(code, "It does not go", "See: raftctl member list")
    done = raftctl(*at, *command)
    assert (done.returncode, done.stdout) == (status, b"")
    unknown = "Outcome unknown: " if status == 3 else ""
    assert done.stderr.decode() == (
        f"✗ Failed to {action}: {unknown}It does not go\n"
        f"  Hint: See: raftctl --socket {served.path} member list\n"
    )
    data = json_of(raftctl(*at, "-o", "json", *command))
    assert data["code"] == code


@pytest.mark.parametrize("command", [command for _, command in CHANGES])
def test_a_change_without_an_answer_has_exit_status_3(
    served: Served, at: tuple[str, str], command: tuple[str, ...]
) -> None:
    served.host.is_mute = True
    done = raftctl(*at, "--timeout", "0.2", "-o", "json", *command)
    assert (done.returncode, json_of(done)["code"]) == (3, "unknown_outcome")


def test_a_change_for_which_no_agent_is_there_has_exit_status_5(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(tmp_path / "gone"))
    for _, command in CHANGES:
        assert raftctl("--socket", str(tmp_path / "gone"), *command).returncode == 5


# --- leave, promote, update -----------------------------------------------------------------------


def test_leave_says_who_was_removed_and_what_the_rest_bears(
    served: Served, at: tuple[str, str]
) -> None:
    for name in ("node-02", "node-03"):
        served.host.have_voter(name)
    done = raftctl(*at, "leave", "node-03")
    assert said(done) == (
        0,
        "✓ node-03 was removed\n"
        "  Warning: 2 voters bear the loss of 0, no more than 1 would: add one more, or remove one"
        "\n",
        "",
    )
    data = json_of(raftctl(*at, "-o", "json", "leave", "node-02", "--force"))
    assert set(data) == {"index", "warnings", "members", "note", "pending"}
    assert [item["name"] for item in data["members"]] == ["node-01"]
    requests = [request for request, _ in served.host.membership_requests]
    assert requests == [
        protocol.Leave(1, "node-03", patience_ms=PATIENCE_MS),
        protocol.Leave(1, "node-02", force=True, patience_ms=PATIENCE_MS),
    ]


def test_promote_waits_until_the_learner_is_a_voter(served: Served, at: tuple[str, str]) -> None:
    raftctl(*at, "join", "node-02", ADDRESS, "--learner")
    done = raftctl(*at, "member", "promote", "node-02", "--no-wait")
    note = "✓ node-02 becomes a voter as soon as it has caught up\n"
    assert said(done) == (0, note, "")
    assert "learner (joining)" in raftctl(*at, "member", "list").stdout.decode()
    served.host.have_voter("node-03")
    with Follower(*at, "member", "promote", "node-02") as promote:
        assert promote.note() == "  node-02 has entries up to 100, 0 to go"
        served.call(served.host.have_voter, "node-02")
        assert promote.line() == "✓ node-02 is a voter now"


def test_each_change_can_be_made_for_one_configuration_only(
    served: Served, at: tuple[str, str]
) -> None:
    served.host.have_voter("node-02")
    index = json_of(raftctl(*at, "-o", "json", "member", "list"))["configuration_index"]
    served.host.refusal = Failure(ErrorCode.CONFLICT, "The members have changed since")
    for _, command in CHANGES:
        assert raftctl(*at, *command, "--if-configuration", str(index)).returncode == 1
    requests = [request for request, _ in served.host.membership_requests]
    assert [request.if_configuration for request in requests] == [index] * len(CHANGES)


def test_update_says_where_the_member_is_dialled_now(served: Served, at: tuple[str, str]) -> None:
    served.host.have_voter("node-02")
    served.host.have_voter("node-03")
    done = raftctl(*at, "member", "update", "node-02", "10.0.0.7:5555")
    assert said(done) == (0, "✓ node-02 is dialled at 10.0.0.7:5555 from now on\n", "")
    data = json_of(raftctl(*at, "-o", "json", "member", "list"))
    assert data["members"][1]["address"] == "10.0.0.7:5555"


# --- settings -------------------------------------------------------------------------------------


def test_a_setting_is_shown_set_and_shown_again(at: tuple[str, str]) -> None:
    head, *lines = raftctl(*at, "settings", "list").stdout.decode().splitlines()
    assert head.split() == ["NAME", "VALUE", "DEFAULT", "MEANING"]
    assert ["messages_keep", "100000", "100000"] in [line.split()[:3] for line in lines]
    done = raftctl(*at, "settings", "set", "messages_keep", "50")
    assert said(done) == (0, "✓ messages_keep is 50 on every node\n", "")
    items = json_of(raftctl(*at, "-o", "json", "settings", "list"))["settings"]
    (item,) = [item for item in items if item["name"] == "messages_keep"]
    assert (item["value"], item["default"]) == (50, 100_000)
    assert item["meaning"]
    data = json_of(raftctl(*at, "-o", "json", "settings", "set", "messages_keep", "60"))
    assert set(data) == {"index", "term", "revision"}


@pytest.mark.parametrize(
    ("name", "value", "status"), [("no_such", "1", 1), ("messages_keep", "x", 2)]
)
def test_a_setting_that_makes_no_sense_is_refused(
    at: tuple[str, str], name: str, value: str, status: int
) -> None:
    done = raftctl(*at, "settings", "set", name, value)
    assert (done.returncode, done.stdout) == (status, b"")
    assert name in done.stderr.decode() or value in done.stderr.decode()


def test_a_follower_passes_a_setting_on_only_when_it_is_told_to(
    served: Served, at: tuple[str, str]
) -> None:
    served.host.leader = "node-02"
    refused = raftctl(*at, "settings", "set", "messages_keep", "50")
    assert said(refused) == (
        1,
        "",
        "✗ Failed to set: Not leader - send to leader node\n  Hint: Send from leader node: node-02"
        "\n",
    )
    assert raftctl(*at, "--forward", "settings", "set", "messages_keep", "50").returncode == 6


def test_an_agent_gets_its_share_of_the_time_that_raftctl_waits(
    served: Served, at: tuple[str, str]
) -> None:
    raftctl(*at, "--timeout", "2", "leave", "node-02")
    assert [request.patience_ms for request, _ in served.host.membership_requests] == [1_200]
