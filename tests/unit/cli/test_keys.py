"""Leases, locks, transactions and watches as people use them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from raft_agent.machine.commands import ExpireLease
from raft_agent.machine.leases import MAX_TTL_MS, MIN_TTL_MS
from tests.unit.cli.served import (
    TIMEOUT_S,
    Follower,
    Served,
    clean_environment,
    command,
    json_of,
    raftctl,
)


def end_leases(served: Served) -> None:
    """As a leader does that has heard nothing of them for their time."""

    def end() -> None:
        for lease in list(served.host.machine.leases):
            expire = ExpireLease(lease.id, lease.renewed_index)
            served.host.apply_commands([expire])

    served.call(end)


def test_a_lease_from_its_grant_to_its_end(served: Served, at: tuple[str, str]) -> None:
    granted = raftctl(*at, "lease", "grant", "30")
    assert granted.stdout.decode() == "✓ Lease 1 granted for 30 s\n"
    assert raftctl(*at, "propose", "put", "web", "10.0.0.7", "--lease", "1").returncode == 0
    found = json_of(raftctl(*at, "-o", "json", "propose", "get", "web"))
    assert found["lease"] == 1
    kept = raftctl(*at, "lease", "keepalive", "1")
    assert kept.stdout.decode() == "✓ Lease 1 has 30 s from now on\n"
    assert raftctl(*at, "lease", "list").stdout.decode().splitlines() == [
        "ID  TIME  REMAINING  KEYS",
        "1   30 s  30 s       1",
    ]
    shown = raftctl(*at, "lease", "show", "1").stdout.decode().splitlines()
    assert shown == ["Lease:     1", "Time:      30 s", "Remaining: 30 s", "Keys:      1", "  web"]
    listed = json_of(raftctl(*at, "-o", "json", "lease", "list"))
    assert listed == {
        "leases": [{"lease": 1, "ttl_ms": 30000, "remaining_ms": 30000, "key_count": 1}]
    }
    revoked = raftctl(*at, "lease", "revoke", "1")
    assert "Lease 1 revoked, and 1 key deleted (revision 2)" in revoked.stdout.decode()
    assert raftctl(*at, "propose", "get", "web").returncode == 4


def test_a_lease_may_last_as_long_as_the_state_machine_allows(at: tuple[str, str]) -> None:
    shortest, longest = MIN_TTL_MS / 1000, MAX_TTL_MS / 1000
    for seconds in (shortest, longest):
        assert raftctl(*at, "lease", "grant", f"{seconds:.0f}").returncode == 0
    for seconds in (shortest - 0.001, longest + 1):
        for asked in (("lease", "grant", str(seconds)), ("lock", "l", "--ttl", str(seconds))):
            refused = raftctl(*at, *asked)
            assert refused.returncode == 2
            assert "must be from 1 to 31536000 seconds" in refused.stderr.decode()


@pytest.mark.parametrize(
    "arguments",
    [
        ("lease", "keepalive", "9"),
        ("lease", "revoke", "9"),
        ("lease", "show", "9"),
        ("propose", "put", "k", "v", "--lease", "9"),
    ],
    ids=" ".join,
)
def test_a_lease_that_is_not_there_is_an_error_that_says_so(
    at: tuple[str, str], arguments: tuple[str, ...]
) -> None:
    failed = raftctl(*at, *arguments)
    assert failed.returncode == 1
    assert "There is no lease 9, or no longer" in failed.stderr.decode()
    assert json_of(raftctl(*at, "-o", "json", *arguments))["code"] == "lease_not_found"


def test_a_keepalive_that_follows_ends_with_the_lease(served: Served, at: tuple[str, str]) -> None:
    raftctl(*at, "lease", "grant", "1")
    with Follower(*at, "lease", "keepalive", "1", "--follow") as follower:
        assert follower.line() == "✓ Lease 1 has 1 s from now on"
        end_leases(served)
        assert "no lease 1" in follower.note()
        assert follower.process.wait(TIMEOUT_S) == 1


def txn(at: tuple[str, str], text: str, *options: str) -> subprocess.CompletedProcess[bytes]:
    return raftctl(*at, *options, "propose", "txn", "-", stdin=text.encode())


def test_a_transaction_shows_what_was_done(at: tuple[str, str]) -> None:
    raftctl(*at, "propose", "put", "a/1", "one")
    text = "compare\n exists a/1\nthen\n put a/2 two\n list a/\n delete a/1\n delete-prefix b/\n"
    done = txn(at, text)
    assert done.returncode == 0
    assert done.stdout.decode().splitlines() == [
        "✓ Done (all compares hold; revision 2)",
        "  Replicated at log index 2",
        "put\ta/2",
        "get\ta/1\tone",
        "get\ta/2\ttwo",
        "delete\ta/1\t1",
        "delete-prefix\tb/\t0",
    ]


def test_compares_that_do_not_hold_are_done_otherwise_or_refused(at: tuple[str, str]) -> None:
    otherwise = txn(at, "compare\n exists k\nthen\n delete k\nelse\n put k v\n", "-o", "json")
    assert otherwise.returncode == 0
    data = json_of(otherwise)
    assert (data["succeeded"], data["revision"]) == (False, 1)
    assert data["results"] == [{"deleted": 0, "more": False, "keys": []}]
    refused = txn(at, "compare\n absent k\nthen\n put k v2\n")
    assert refused.returncode == 1
    assert "nothing was changed" in refused.stderr.decode()
    assert json_of(txn(at, "compare\n absent k\nthen\n put k x\n", "-o", "json"))["code"] == (
        "conflict"
    )


def test_a_file_that_is_no_transaction_is_refused_with_its_place(
    at: tuple[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "t.txt"
    file.write_text("then\n put k\n")
    failed = raftctl(*at, "propose", "txn", str(file))
    assert failed.returncode == 1
    assert f"{file} is no transaction: line 2: 'put k' is no operation" in failed.stderr.decode()
    gone = raftctl(*at, "propose", "txn", str(tmp_path / "none"))
    assert gone.returncode == 1
    assert "No such file" in gone.stderr.decode()
    twice = txn(at, "then\n put k v\n delete k\n")
    assert '"k" is changed twice in one transaction' in twice.stderr.decode()


def test_a_watch_shows_a_transaction_and_the_end_of_a_lease_as_one(
    served: Served, at: tuple[str, str]
) -> None:
    raftctl(*at, "lease", "grant", "30")
    with Follower(*at, "-o", "json", "propose", "watch", "a/") as follower:
        assert "Watching keys below 'a/'" in follower.note()
        txn(at, "then\n put a/1 x --lease 1\n put b y\n put a/2 z --lease 1\n")
        end_leases(served)
        lines = [json.loads(follower.line()) for _ in range(4)]
    assert [(line["type"], line["key"], line["revision"]) for line in lines] == [
        ("put", "a/1", 1),
        ("put", "a/2", 1),
        ("delete", "a/1", 2),
        ("delete", "a/2", 2),
    ]
    assert [line.get("more", False) for line in lines] == [True, False, True, False]
    assert {line["lease"] for line in lines} == {1}


# --- locks


def test_a_lock_is_held_while_the_command_runs_which_knows_its_token(
    served: Served, at: tuple[str, str]
) -> None:
    script = 'echo "$RAFT_LOCK_TOKEN $RAFT_LOCK_NAME $RAFT_LOCK_KEY"; exit 7'
    done = raftctl(*at, "lock", "backup", "--", "sh", "-c", script)
    assert done.returncode == 7
    own = "1 backup lock/backup/0000000000000002\n"
    assert done.stdout.decode() == f"✓ Locked: backup (token 1)\n{own}"
    quiet = raftctl(*at, "lock", "backup", "--quiet", "--", "sh", "-c", "echo $RAFT_LOCK_TOKEN")
    assert quiet.stdout.decode() == "3\n"
    assert len(served.host.machine.leases) == 0
    assert served.host.machine.key_count() == 0


def test_a_lock_without_a_command_is_held_until_it_is_told_to_end(
    served: Served, at: tuple[str, str]
) -> None:
    with Follower(*at, "-o", "json", "lock", "backup") as holder:
        held = json.loads(holder.line())
        assert held == {"lock": "backup", "token": 1, "key": "lock/backup/0000000000000002"}
        late = raftctl(*at, "lock", "backup", "--wait", "0", "--", "true")
        assert late.returncode == 1
        assert f"is held by {os.uname().nodename} pid" in late.stderr.decode()
        too_long = raftctl(*at, "-o", "json", "lock", "backup", "--wait", "1", "--", "true")
        assert json_of(too_long)["code"] == "conflict"
        assert holder.interrupt() == 0
    assert raftctl(*at, "lock", "backup", "--wait", "0", "--", "true").returncode == 0


def test_a_lock_that_nobody_leads_for_is_not_said_to_be_held(
    served: Served, at: tuple[str, str]
) -> None:
    served.call(setattr, served.host, "leader", None)
    done = raftctl(*at, "-o", "json", "lock", "backup", "--wait", "0.2", "--", "true")
    told = json_of(done)
    assert (told["code"], "could not be asked for within 0.2 s" in told["error"]) == (
        "timed_out",
        True,
    )


def test_a_lock_that_is_lost_ends_the_command_and_says_so(
    served: Served, at: tuple[str, str]
) -> None:
    options = ("--ttl", "1", "--", "sh", "-c", "echo up; exec sleep 1000")
    with Follower(*at, "lock", "backup", *options) as holder:
        assert holder.line() == "✓ Locked: backup (token 1)"
        assert holder.line() == "up"
        end_leases(served)
        assert "was lost" in holder.note()
        assert holder.process.wait(TIMEOUT_S) == 3


def test_a_signal_is_passed_on_to_the_command_and_the_lock_given_back(
    served: Served, at: tuple[str, str]
) -> None:
    script = "trap 'exit 5' TERM; echo up; while :; do sleep 0.01; done"
    with Follower(*at, "lock", "backup", "-q", "--", "sh", "-c", script) as holder:
        assert holder.line() == "up"
        holder.process.send_signal(signal.SIGTERM)
        assert holder.process.wait(TIMEOUT_S) == 5
    assert len(served.host.machine.leases) == 0


def test_a_command_that_can_not_be_run_gives_the_lock_back(
    served: Served, at: tuple[str, str], tmp_path: Path
) -> None:
    missing = raftctl(*at, "lock", "backup", "--", str(tmp_path / "none"))
    assert missing.returncode == 127
    assert "Can't run" in missing.stderr.decode()
    plain = tmp_path / "plain"
    plain.write_text("")
    assert raftctl(*at, "lock", "backup", "--", str(plain)).returncode == 126
    assert len(served.host.machine.leases) == 0


def test_a_lock_needs_an_agent(tmp_path: Path) -> None:
    done = subprocess.run(
        command("--socket", str(tmp_path / "none"), "lock", "x", "--", "true"),
        capture_output=True,
        env=clean_environment(),
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 5
