"""raftctl as people call it, against a real API server."""

from __future__ import annotations

import json
import socket
from pathlib import Path

from raft_agent.api import protocol
from raft_agent.machine.commands import Put, SendMessage
from raft_agent.machine.machine import Machine
from tests.unit.cli.served import Follower, Served, json_of, raftctl, serving


def test_send_then_messages(at: tuple[str, str]) -> None:
    sent = raftctl(*at, "send", "Hello from the RAFT cluster!")
    assert sent.returncode == 0
    assert sent.stdout.decode() == (
        '✓ Message sent: "Hello from the RAFT cluster!"\n  Replicated at log index 1\n'
    )
    raftctl(*at, "send", "second")
    shown = raftctl(*at, "messages", "--limit", "5").stdout.decode().splitlines()
    assert shown[0] == "Messages (last applied index: 2)"
    assert shown[1] == "=" * 50
    assert [line[10:] for line in shown[2:]] == [
        " node-01: second",
        " node-01: Hello from the RAFT cluster!",
    ]
    lines = raftctl(*at, "-o", "json", "messages", "--limit", "1").stdout.splitlines()
    assert len(lines) == 1
    assert b'"text":"second"' in lines[0]


def test_a_follower_refuses_and_names_the_leader(served: Served, at: tuple[str, str]) -> None:
    served.host.leader = "node-02"
    refused = raftctl(*at, "send", "Test message")
    assert refused.returncode == 1
    assert refused.stdout == b""
    assert refused.stderr.decode() == (
        "✗ Failed to send: Not leader - send to leader node\n"
        "  Hint: Send from leader node: node-02\n"
    )
    data = json_of(raftctl(*at, "-o", "json", "propose", "put", "k", "v"))
    assert (data["code"], data["leader"]) == ("not_leader", "node-02")


def test_forward_makes_the_follower_pass_it_on(
    served: Served, at: tuple[str, str], tmp_path: Path
) -> None:
    with serving(tmp_path / "node-02.sock", "node-02") as leader:
        served.host.leader = "node-02"
        served.host.leader_api = _Elsewhere(leader)  # type: ignore[assignment]
        done = raftctl(*at, "--forward", "send", "passed on")
        assert done.returncode == 0
        assert raftctl(*at, "send", "by the environment", RAFTCTL_FORWARD="1").returncode == 0
        shown = raftctl("--socket", str(leader.path), "messages").stdout.decode()
    assert "node-01: passed on" in shown


class _Elsewhere:
    """The leader's API, called from another server's thread."""

    def __init__(self, leader: Served) -> None:
        self._leader = leader

    def serve_forwarded(self, body: bytes, reply: object) -> None:
        answers: list[bytes] = []
        self._leader.call(self._leader.server.serve_forwarded, body, answers.append)
        while not answers:
            self._leader.call(lambda: None)
        reply(answers[0])  # type: ignore[operator]


def test_without_a_leader_the_exit_status_is_6(served: Served, at: tuple[str, str]) -> None:
    served.host.leader = None
    assert raftctl(*at, "propose", "put", "k", "v").returncode == 6
    assert raftctl(*at, "propose", "get", "k").returncode == 6
    assert raftctl(*at, "propose", "get", "k", "--consistency", "stale").returncode == 4


def test_a_key_is_stored_read_and_deleted(at: tuple[str, str]) -> None:
    assert raftctl(*at, "propose", "put", "mykey", "my value").returncode == 0
    got = raftctl(*at, "propose", "get", "mykey")
    assert (got.returncode, got.stdout, got.stderr) == (0, b"my value\n", b"")
    data = json_of(raftctl(*at, "-o", "json", "propose", "get", "mykey"))
    assert (data["key"], data["value"], data["version"]) == ("mykey", "my value", 1)
    deleted = json_of(raftctl(*at, "-o", "json", "propose", "delete", "mykey"))
    assert deleted["deleted"] == 1
    missing = raftctl(*at, "propose", "get", "mykey")
    assert (missing.returncode, missing.stdout) == (4, b"")
    assert missing.stderr.decode().startswith("✗ Failed to get: ")
    assert raftctl(*at, "propose", "delete", "mykey").returncode == 4


def test_a_value_keeps_its_bytes_from_file_and_stdin(at: tuple[str, str], tmp_path: Path) -> None:
    value = bytes(range(256))
    (tmp_path / "value").write_bytes(value)
    assert raftctl(*at, "propose", "put", "file", f"@{tmp_path}/value").returncode == 0
    assert raftctl(*at, "propose", "put", "stdin", "-", stdin=value).returncode == 0
    for key in ("file", "stdin"):
        assert raftctl(*at, "propose", "get", key).stdout == value + b"\n"
    missing = raftctl(*at, "propose", "put", "k", f"@{tmp_path}/nothing")
    assert missing.returncode == 1
    assert "No such file" in missing.stderr.decode()


def test_a_value_that_is_too_large_is_not_sent(at: tuple[str, str]) -> None:
    done = raftctl(*at, "-o", "json", "propose", "put", "k", "-", stdin=bytes((8 << 20) + 1))
    assert (done.returncode, json_of(done)["code"]) == (1, "too_large")


def test_conditions_hold_or_refuse(at: tuple[str, str]) -> None:
    put = ("-o", "json", "propose", "put", "k")
    first = json_of(raftctl(*at, *put, "1", "--if-absent"))
    assert raftctl(*at, *put, "2", "--if-absent").returncode == 1
    revision = str(first["revision"])
    assert raftctl(*at, *put, "2", "--if-revision", revision).returncode == 0
    refused = raftctl(*at, *put, "3", "--if-revision", revision)
    assert (refused.returncode, json_of(refused)["code"]) == (1, "conflict")
    assert raftctl(*at, "propose", "delete", "k", "--if-revision", revision).returncode == 1
    assert raftctl(*at, "propose", "get", "k").stdout == b"2\n"


def test_a_list_has_a_line_for_each_key(at: tuple[str, str]) -> None:
    for key, value in (("a/1", "x"), ("a/2", "two\nlines"), ("b", "z")):
        raftctl(*at, "propose", "put", key, value)
    assert raftctl(*at, "propose", "list", "a/").stdout == b"a/1\tx\na/2\ttwo\\nlines\n"
    limited = raftctl(*at, "propose", "list", "", "--limit", "2")
    assert limited.stdout.count(b"\n") == 2
    assert limited.stderr == b"There are more: --after a/2\n"
    rest = json_of(raftctl(*at, "-o", "json", "propose", "list", "", "--after", "a/1"))
    assert [item["key"] for item in rest["keys"]] == ["a/2", "b"]
    assert rest["more"] is False


def test_a_list_without_a_limit_goes_through_all_pages(served: Served, at: tuple[str, str]) -> None:
    commands = [Put(f"{n:05}", b"v", -1) for n in range(2500)]
    served.call(served.host.apply_commands, commands)
    lines = raftctl(*at, "propose", "list", "").stdout.splitlines()
    assert [line.split(b"\t")[0] for line in lines] == [b"%05d" % n for n in range(2500)]


def test_a_stale_read_says_how_old_it_may_be(served: Served, at: tuple[str, str]) -> None:
    raftctl(*at, "propose", "put", "k", "v")
    for read, shown in (("get", b"v\n"), ("list", b"k\tv\n")):
        stale = (*at, "propose", read, "k", "--consistency", "stale")
        served.host.age_ms = 12
        done = raftctl(*stale)
        assert (done.stdout, done.stderr) == (shown, b"(as of 12 ms ago)\n")
        assert json_of(raftctl(*stale, "-o", "json"))["age_ms"] == 12
        served.host.age_ms = None
        unknown = b"(it may be of any age: this node has not heard of a leader yet)\n"
        assert raftctl(*stale).stderr == unknown
        assert json_of(raftctl(*stale, "-o", "json"))["age_ms"] is None
        for consistency in ("linearizable", "lease"):
            fresh = raftctl(*at, "propose", read, "k", "--consistency", consistency)
            assert (fresh.stdout, fresh.stderr) == (shown, b"")
    assert "age_ms" not in json_of(raftctl(*at, "-o", "json", "propose", "get", "k"))


def test_status_in_all_forms(at: tuple[str, str]) -> None:
    text = raftctl(*at, "status").stdout.decode()
    assert text.startswith("RAFT Cluster Status\n==================\nNode ID:      node-01\n")
    assert json_of(raftctl(*at, "-o", "json", "status"))["node_id"] == "node-01"
    yaml = raftctl(*at, "status", "-o", "yaml").stdout.decode()
    assert yaml.startswith("node_id: node-01\nrole: leader\n")
    assert raftctl("status", RAFTCTL_SOCKET=at[1], RAFTCTL_OUTPUT="json").stdout[:1] == b"{"


def test_members_health_and_transfer(served: Served, at: tuple[str, str]) -> None:
    assert "voter (leader)" in raftctl(*at, "member", "list").stdout.decode()
    health = raftctl(*at, "health")
    assert (health.returncode, "✓ Quorum" in health.stdout.decode()) == (0, True)
    served.host.has_quorum = False
    lost = raftctl(*at, "-o", "json", "health")
    assert (lost.returncode, json_of(lost)["quorum"]) == (6, False)
    *_, verdict = raftctl(*at, "health").stdout.decode().splitlines()
    assert verdict == "✗ No quorum: nobody leads, and writes wait until somebody does"
    done = raftctl(*at, "leader", "transfer")
    assert done.stdout.decode() == "✓ Leadership handed over to node-01\n"
    again = raftctl(*at, "leader", "transfer", "node-01")
    assert again.stdout.decode() == "✓ node-01 leads already\n"
    assert raftctl(*at, "leader", "transfer", "nobody").returncode == 1


def test_a_node_that_sees_no_quorum_because_it_was_removed_says_so(
    served: Served, at: tuple[str, str]
) -> None:
    served.host.has_quorum = False
    served.host.leader = None
    served.host.was_removed = True
    served.host.member_note = "this node was removed from the cluster"
    health = raftctl(*at, "health")
    assert health.returncode == 6
    *_, verdict, note = health.stdout.decode().splitlines()
    assert verdict == "✗ node-01 is no member: ask another node"
    assert note == "  node-01: this node was removed from the cluster"
    assert json_of(raftctl(*at, "-o", "json", "status"))["removed"] is True


def test_a_node_in_no_cluster_has_no_members_to_list(served: Served, at: tuple[str, str]) -> None:
    served.host.fresh_note = "waiting to be joined"
    listed = raftctl(*at, "member", "list")
    assert (listed.returncode, listed.stdout) == (0, b"")
    note = "This node belongs to no cluster yet, so it knows of no members\n"
    assert listed.stderr.decode() == note
    assert json_of(raftctl(*at, "-o", "json", "member", "list"))["members"] == []


def test_no_agent_has_exit_status_5(tmp_path: Path) -> None:
    done = raftctl("--socket", str(tmp_path / "none"), "-o", "json", "status")
    assert (done.returncode, json_of(done)["code"]) == (5, "not_reachable")
    named = raftctl("--node", "no-such-node", "send", "x")
    assert named.returncode == 5
    assert "/tmp/raft-no-such-node.sock" in named.stderr.decode()  # noqa: S108


def test_a_write_without_an_answer_has_exit_status_3_and_a_read_5(tmp_path: Path) -> None:
    """A listener that takes connections and never answers, as a stopped agent does."""
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent"))
        silent.listen()
        at = ("--socket", str(tmp_path / "silent"), "--timeout", "0.2", "-o", "json")
        write = raftctl(*at, "send", "x")
        assert (write.returncode, json_of(write)["code"]) == (3, "unknown_outcome")
        assert raftctl(*at, "propose", "get", "x").returncode == 5


def test_watch_shows_messages_and_goes_on_after_a_restart(
    served: Served, at: tuple[str, str]
) -> None:
    raftctl(*at, "send", "of the past")
    with Follower(*at, "watch", "--interval", "20") as watch:
        assert watch.line() == "Watching for messages on node-01 (Ctrl+C to stop)..."
        assert watch.line() == "=" * 50
        raftctl(*at, "send", "first")
        assert watch.line()[10:] == " node-01: first"
        served.stop()
        assert "Connection lost" in watch.note()
        served.call(served.host.apply_commands, [SendMessage("meanwhile", "node-01")])
        served.start()
        assert watch.line()[10:] == " node-01: meanwhile"
        raftctl(*at, "send", "last")
        assert watch.line()[10:] == " node-01: last"
        assert watch.interrupt() == 0


def test_watch_in_json_prints_one_object_a_line(at: tuple[str, str]) -> None:
    with Follower(*at, "-o", "json", "watch") as watch:
        assert watch.note().startswith("Watching for messages")
        assert watch.note() == "=" * 50
        raftctl(*at, "send", "a")
        item = json.loads(watch.line())
        assert set(item) == {"index", "time", "node", "text"}


def test_watch_of_keys_shows_puts_and_deletes(at: tuple[str, str]) -> None:
    with Follower(*at, "propose", "watch", "a/") as watch:
        assert watch.note() == "Watching keys below 'a/' (Ctrl+C to stop)..."
        raftctl(*at, "propose", "put", "b", "not below")
        raftctl(*at, "propose", "put", "a/k", "v")
        raftctl(*at, "propose", "delete", "a/k")
        assert watch.line() == "put\ta/k\tv"
        assert watch.line() == "delete\ta/k"
        assert watch.interrupt() == 0


def test_a_watch_of_keys_begins_at_a_revision_and_goes_on_after_a_restart(
    served: Served, at: tuple[str, str]
) -> None:
    for value in ("1", "2", "3"):
        raftctl(*at, "propose", "put", "k", value)
    watch_at = (*at, "propose", "watch", "k", "--from-revision", "2", "--interval", "20")
    with Follower(*watch_at) as watch:
        assert watch.note() == "Watching key 'k' (Ctrl+C to stop)..."
        assert [watch.line(), watch.line()] == ["put\tk\t2", "put\tk\t3"]
        served.stop()
        assert "Connection lost" in watch.note()
        meanwhile = [Put(key, b"4", -1) for key in ("other", "k")]
        served.call(served.host.apply_commands, meanwhile)
        served.start()
        raftctl(*at, "propose", "put", "k", "5")
        assert [watch.line(), watch.line()] == ["put\tk\t4", "put\tk\t5"]
        assert watch.interrupt() == 0


def test_a_watch_of_keys_from_now_on_loses_nothing_either(
    served: Served, at: tuple[str, str]
) -> None:
    raftctl(*at, "propose", "put", "k", "past")
    with Follower(*at, "propose", "watch", "", "--interval", "20") as watch:
        assert watch.note().startswith("Watching")
        served.stop()
        assert "Connection lost" in watch.note()
        served.call(served.host.apply_commands, [Put("k", b"meanwhile", -1)])
        served.start()
        assert watch.line() == "put\tk\tmeanwhile"


def test_changes_that_are_not_kept_any_more_end_a_watch_with_what_is(
    served: Served, at: tuple[str, str]
) -> None:
    raftctl(*at, "settings", "set", "history_keep", "0")
    large = Put("k", bytes(1 << 20), -1)  # the history forgets in steps of a MiB
    served.call(served.host.apply_commands, [large] * 3)
    gone = raftctl(*at, "propose", "watch", "k", "--from-revision", "1")
    oldest = served.host.machine.compacted_revision + 1
    assert (gone.returncode, gone.stdout) == (1, b"")
    assert gone.stderr.decode() == (
        "✗ Failed to watch: The changes from revision 1 on are not all kept; "
        f"the oldest is {oldest}\n  Hint: Changes are kept --from-revision {oldest} on; "
        f"what the keys are now: raftctl --socket {served.path} -o json propose list PREFIX\n"
    )


def test_a_watch_of_keys_repeats_nothing_when_a_restarted_agent_applies_its_log_again(
    served: Served, at: tuple[str, str]
) -> None:
    host = served.host
    commands = [Put("k", value) for value in (b"1", b"2")]
    before = [Put("k", b"before")]
    served.call(host.apply_commands, before)
    with Follower(*at, "propose", "watch", "k", "--interval", "10") as watch:
        watch.note()
        served.call(host.apply_commands, commands)
        assert [watch.line(), watch.line()] == ["put\tk\t1", "put\tk\t2"]
        served.stop()
        host.machine = Machine()
        served.start()
        assert "Connection lost" in watch.note()
        assert watch.note() == "Connected again"
        served.call(host.apply_commands, before)
        served.call(host.apply_commands, commands)
        served.call(host.apply_commands, [Put("k", b"3")])
        assert watch.line() == "put\tk\t3"
        assert watch.interrupt() == 0


def test_a_watch_that_never_connected_fails(tmp_path: Path) -> None:
    assert raftctl("--socket", str(tmp_path / "none"), "watch").returncode == 5


def test_events_are_shown_and_followed(served: Served, at: tuple[str, str]) -> None:
    served.call(served.host.happen, "election_started")
    served.call(served.host.happen, "leader_elected")
    lines = raftctl(*at, "events").stdout.decode().splitlines()
    assert [line.split("  ")[1] for line in lines] == ["election_started", "leader_elected"]
    assert len(raftctl(*at, "events", "--limit", "1").stdout.splitlines()) == 1
    with Follower(*at, "events", "--follow") as events:
        assert "election_started" in events.line()
        assert "leader_elected" in events.line()
        served.call(served.host.happen, "stepped_down")
        assert "stepped_down" in events.line()
        assert events.interrupt() == 0


def test_doctor_names_what_is_wrong_and_the_command(
    served: Served, at: tuple[str, str], tmp_path: Path
) -> None:
    good = raftctl(*at, "-o", "json", "doctor")
    levels = {item["check"]: item["level"] for item in json_of(good)["findings"]}
    assert (good.returncode, levels["leader"], levels["quorum"]) == (0, "ok", "ok")
    served.host.leader = None
    bad = raftctl(*at, "doctor")
    assert bad.returncode == 1
    (line,) = [line for line in bad.stdout.decode().splitlines() if "  leader " in line]
    assert line.startswith("fail")
    assert line.endswith(f"raftctl --socket {served.path} events --limit 20")
    gone = raftctl("--socket", str(tmp_path / "none"), "doctor")
    assert gone.returncode == 1
    assert "raft-agent --config raft.toml" in gone.stdout.decode()


def findings(at: tuple[str, str]) -> dict[str, dict[str, str]]:
    """What doctor finds, by the word for it."""
    done = raftctl(*at, "-o", "json", "doctor")
    return {item["check"]: item for item in json_of(done)["findings"]}


def test_doctor_counts_the_voters(served: Served, at: tuple[str, str]) -> None:
    assert "voters" not in findings(at)
    served.host.have_voter("node-02")
    assert findings(at)["voters"]["text"].startswith("Two voters: the loss of either stops")
    served.host.have_voter("node-03")
    assert "voters" not in findings(at)
    served.host.have_voter("node-04")
    assert findings(at)["voters"]["text"].startswith("4 voters bear the loss of 1")


def test_doctor_says_what_the_kernel_part_lacks_and_the_command(
    served: Served, at: tuple[str, str]
) -> None:
    assert findings(at)["ebpf"] == {
        "level": "ok",
        "check": "ebpf",
        "text": "eBPF is off",
        "fix": "",
    }
    served.host.ebpf = protocol.EbpfStatus(
        "degraded", "libbpf.so.1 is missing", fix="apt-get install libbpf1"
    )
    found = findings(at)["ebpf"]
    assert (found["level"], found["fix"]) == ("warn", "apt-get install libbpf1")
    assert found["text"] == "eBPF is degraded: libbpf.so.1 is missing"


def test_doctor_does_not_blame_a_quorum_that_a_node_is_no_part_of(
    served: Served, at: tuple[str, str]
) -> None:
    served.host.has_quorum = False
    served.host.leader = None
    served.host.fresh_note = "waiting to be joined"
    checks = findings(at)
    assert checks["cluster"]["level"] == "fail"
    assert checks["cluster"]["fix"] == ""  # what it waits for says what to do
    assert "quorum" not in checks
    served.host.fresh_note, served.host.member_note = "", "this node was removed from the cluster"
    served.host.was_removed = True
    checks = findings(at)
    assert (checks["note"]["level"], checks["note"]["text"]) == ("fail", served.host.member_note)
    assert checks["note"]["fix"] == ""
    assert not checks.keys() & {"quorum", "leader", "voters"}
