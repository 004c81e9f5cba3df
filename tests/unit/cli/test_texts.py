"""The contract's text forms, held literally."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec
import pytest

from raft_agent.api import protocol
from raftctl.health import health_text
from raftctl.members import members_text
from raftctl.messages import message_line, messages_text, write_data
from raftctl.output import Output
from raftctl.propose_data import event_data, event_line, key_data
from raftctl.status import status_data, status_text

STATUS = protocol.StatusResult(
    node_id="node-02",
    role="leader",
    term=3,
    commit_index=4,
    last_applied=4,
    leader="node-02",
    peers=["node-01", "node-03"],
    voters=["node-01", "node-02", "node-03"],
    learners=[],
    members=[protocol.MemberInfo("node-02", "00000000000000a2", "127.0.0.1:5555", "voter")],
    cluster_id="c0ffee",
    version="0.1.0",
    ebpf=protocol.EbpfStatus(),
    progress={"node-01": protocol.ProgressInfo(4, 0, 12)},
)


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_status_is_the_contracts_text_to_the_letter() -> None:
    assert status_text(STATUS).startswith(
        "RAFT Cluster Status\n"
        "==================\n"
        "Node ID:      node-02\n"
        "Role:         Leader\n"
        "Current Term: 3\n"
        "Commit Index: 4\n"
        "Last Applied: 4\n"
        "Leader:       node-02\n"
        'Peers:        ["node-01", "node-03"]\n'
    )


def test_status_of_a_node_without_leader_says_none() -> None:
    lost = msgspec.structs.replace(STATUS, role="candidate", leader=None, peers=[], progress=None)
    lines = status_text(lost).splitlines()
    assert "Role:         Candidate" in lines
    assert "Leader:       none" in lines
    assert "Peers:        []" in lines


def test_what_else_there_is_to_know_follows_the_peers() -> None:
    noted = msgspec.structs.replace(STATUS, note="waits to be joined", learners=["node-04"])
    after = status_text(noted).partition("Peers:")[2]
    assert "Cluster ID:   c0ffee\n" in after
    assert "Version:      0.1.0\n" in after
    assert "In Force:     none (this agent knows version 1)\n" in after
    assert "eBPF:         off\n" in after
    assert 'Learners:     ["node-04"]\n' in after
    assert "Follower:     node-01 at 4, lag 0, heard 12 ms ago\n" in after
    assert after.endswith("Note:         waits to be joined")


def test_status_names_who_joins_and_who_leaves() -> None:
    members = [
        protocol.MemberInfo("node-02", "a2", "b:1", "voter"),
        protocol.MemberInfo("node-03", "a3", "c:1", "voter", "leaving"),
        protocol.MemberInfo("node-04", "a4", "d:1", "learner", "joining"),
    ]
    after = status_text(msgspec.structs.replace(STATUS, members=members)).partition("Peers:")[2]
    assert "Change:       node-03 is leaving\nChange:       node-04 is joining\n" in after


def test_a_removed_node_is_not_leaving_any_more() -> None:
    members = [protocol.MemberInfo("node-01", "a1", "a:1", "voter", "leaving")]
    removed = msgspec.structs.replace(STATUS, members=members, removed=True, note="was removed")
    assert "Change:" not in status_text(removed)


def test_status_tells_the_generation_that_a_recovery_began() -> None:
    assert "Generation:" not in status_text(STATUS)
    later = msgspec.structs.replace(STATUS, generation="00000000000000f1")
    assert "Generation:   00000000000000f1, since a recovery\n" in status_text(later) + "\n"


def test_status_has_the_contracts_fields() -> None:
    data = status_data(STATUS)
    assert set(data) == {
        "node_id",
        "role",
        "term",
        "commit_index",
        "last_applied",
        "leader",
        "peers",
        "voters",
        "learners",
        "members",
        "cluster_id",
        "version",
        "ebpf",
        "progress",
        "removed",
        "cluster_version",
        "id",
        "superseded",
        "knows",
        "generation",
    }
    assert data["progress"] == {"node-01": {"match_index": 4, "lag": 0, "last_contact_ms": 12}}
    assert data["ebpf"] == {
        "state": "off",
        "reason": "",
        "interfaces": [],
        "firewall": "off",
        "faults": [],
        "fix": "",
    }
    assert "progress" not in status_data(msgspec.structs.replace(STATUS, progress=None))


def test_messages_are_the_contracts_text_to_the_letter() -> None:
    result = protocol.MessagesResult(
        5,
        [
            protocol.MessageItem(
                5, "2026-01-01T02:58:00.250Z", "node-02", "Hello from the RAFT cluster!"
            ),
            protocol.MessageItem(4, "2026-01-01T02:55:39.000Z", "node-02", "Message 3 from leader"),
        ],
    )
    assert messages_text(result) == (
        "Messages (last applied index: 5)\n"
        "==================================================\n"
        "[02:58:00] node-02: Hello from the RAFT cluster!\n"
        "[02:55:39] node-02: Message 3 from leader"
    )


def test_a_message_of_several_lines_stays_on_one() -> None:
    item = protocol.MessageItem(1, "2026-01-01T00:00:00.000Z", "n", "one\n[00:00:00] boss: two")
    assert message_line(item) == "[00:00:00] n: one\\n[00:00:00] boss: two"


def test_a_write_answers_with_index_term_and_revision() -> None:
    assert write_data(protocol.WriteResult(7, 2, 3)) == {"index": 7, "term": 2, "revision": 3}


def test_a_key_has_its_value_as_text_or_base64() -> None:
    assert key_data(protocol.KeyValue("k", b"v", 5, 4, 2)) == {
        "key": "k",
        "value": "v",
        "revision": 5,
        "create_revision": 4,
        "version": 2,
    }
    assert key_data(protocol.KeyValue("k", b"\xff", 5, 4, 2))["value_base64"] == "/w=="


def test_a_change_of_a_key_is_one_line() -> None:
    put = protocol.KeyEvent("put", "a/b", b"two\nlines", 5, 9)
    delete = protocol.KeyEvent("delete", "a/b", b"", 6, 10)
    assert event_line(put) == "put\ta/b\ttwo\\nlines"
    assert event_line(delete) == "delete\ta/b"
    assert event_line(protocol.KeyEvent("put", "a\tb", b"c\td", 5, 9)) == "put\ta\\tb\tc\\td"
    assert event_data(put)["value"] == "two\nlines"
    assert event_data(delete) == {"type": "delete", "key": "a/b", "revision": 6, "index": 10}


def test_health_has_a_line_for_each_member_the_dead_too() -> None:
    members = [
        protocol.HealthMember(
            "node-01", "a1", "127.0.0.1:1", "voter", "healthy", 0, 9, 0, "", "0.1.0", (1, 1)
        ),
        protocol.HealthMember(
            "node-02", "a2", "127.0.0.1:2", "voter", "lagging", 20, 4, 5, "", "0.2.0", (1, 2)
        ),
        protocol.HealthMember(
            "node-03", "a3", "127.0.0.1:3", "voter", "unreachable", None, None, None, "no answer"
        ),
    ]
    text = health_text(protocol.HealthResult(True, "node-01", 3, members), Output(color=False))
    assert text == (
        "NAME     ROLE    STATE        CONTACT  MATCH  LAG  ADDRESS      AGENT        DETAIL\n"
        "node-01  leader  healthy      0 ms     9      0    127.0.0.1:1  0.1.0 (1)\n"
        "node-02  voter   lagging      20 ms    4      5    127.0.0.1:2  0.2.0 (1-2)\n"
        "node-03  voter   unreachable  -        -      -    127.0.0.1:3  -            no answer\n"
        "✓ Quorum: leader node-01, term 3"
    )
    lost = protocol.HealthResult(False, "", 3, members)
    *_, verdict, way_out = health_text(lost, Output(color=False), None, "raftctl -x").splitlines()
    assert verdict == "✗ No quorum: writes wait until more members are back"
    assert way_out == "  If they are lost for good: raftctl -x recover --dry-run"
    mute = protocol.HealthResult(False, "", 3, members[:2])
    *_, verdict = health_text(mute, Output(color=False)).splitlines()
    assert verdict == "✗ No quorum: nobody leads, and writes wait until somebody does"


def test_members_are_a_table_that_marks_the_leader() -> None:
    result = protocol.MemberListResult(
        "c0ffee",
        "node-02",
        [
            protocol.MemberInfo(
                "node-01", "00000000000000a1", "127.0.0.1:1", "voter", "", "0.1.0", (1, 2)
            ),
            protocol.MemberInfo("node-02", "00000000000000a2", "127.0.0.1:2", "voter"),
        ],
    )
    assert members_text(result) == (
        "NAME     ID                ADDRESS      ROLE            AGENT\n"
        "node-01  00000000000000a1  127.0.0.1:1  voter           0.1.0 (1-2)\n"
        "node-02  00000000000000a2  127.0.0.1:2  voter (leader)  -"
    )
