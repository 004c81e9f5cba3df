"""`raftctl export` as people call it, against a real API server."""

from __future__ import annotations

import json
import subprocess

import pytest

from raft_agent.api import protocol
from tests.unit.cli.served import Follower, Served, json_of, raftctl

ADD = ("export", "add", "deny_v4", "--prefix", "fw/deny/", "--kind", "lpm_trie")
TYPES = ("--key", "ipv4_prefix", "--value", "u32")


def said(done: subprocess.CompletedProcess[bytes]) -> tuple[int, str, str]:
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def put(at: tuple[str, str], key: str, value: str) -> subprocess.CompletedProcess[bytes]:
    return raftctl(*at, "propose", "put", key, value)


@pytest.fixture
def exported(served: Served, at: tuple[str, str]) -> tuple[str, str]:
    assert said(raftctl(*at, *ADD, *TYPES, "--max-entries", "2")) == (
        0,
        "✓ Keys below fw/deny/ stand in the map deny_v4\n",
        "",
    )
    return at


def test_what_does_not_fit_is_refused_with_the_reason(exported: tuple[str, str]) -> None:
    status, _, error = said(put(exported, "fw/deny/203.0.113.5/24", "1"))
    assert status == 1
    assert "has to be written as 203.0.113.0/24" in error
    for network in ("10.0.0.0/8", "11.0.0.0/8"):
        assert put(exported, f"fw/deny/{network}", "1").returncode == 0
    status, _, error = said(put(exported, "fw/deny/12.0.0.0/8", "1"))
    assert status == 1
    assert "more than 2 keys below" in error


def test_keys_that_are_there_and_do_not_fit_are_named(served: Served, at: tuple[str, str]) -> None:
    put(at, "fw/deny/everybody", "1")
    status, _, error = said(raftctl(*at, *ADD, *TYPES))
    assert status == 1
    assert '"fw/deny/everybody" does not fit' in error
    assert json_of(raftctl(*at, "-o", "json", "export", "list"))["exports"] == []


def test_an_unknown_type_is_refused(served: Served, at: tuple[str, str]) -> None:
    status, _, error = said(raftctl(*at, *ADD, "--key", "ipv4_prefix", "--value", "u33"))
    assert status == 1
    assert "u33" in error


def test_the_list_says_what_is_exported_and_how_current_it_is(exported: tuple[str, str]) -> None:
    put(exported, "fw/deny/10.0.0.0/8", "1")
    status, text, _ = said(raftctl(*exported, "export", "list"))
    assert status == 0
    lines = text.splitlines()
    assert lines[0] == "Maps here:    ready, up to index 2, fresh for 700 ms"
    head, row = lines[2].split(), lines[3].split()
    assert dict(zip(head, row, strict=True)) == {
        "MAP": "deny_v4",
        "PREFIX": "fw/deny/",
        "KIND": "lpm_trie",
        "KEY": "ipv4_prefix",
        "VALUE": "u32",
        "ENTRIES": "1/2",
        "GROUP": "-",
        "PIN": "/sys/fs/bpf/raft/default/deny_v4_v1",
    }
    data = json_of(raftctl(*exported, "-o", "json", "export", "list"))
    assert (data["state"], data["applied_index"], data["fresh_ms"]) == ("ready", 2, 700)
    assert data["exports"][0]["entries"] == 1


def test_a_dump_has_a_line_for_each_entry(exported: tuple[str, str]) -> None:
    put(exported, "fw/deny/11.0.0.0/8", "7")
    put(exported, "fw/deny/10.0.0.0/8", "1")
    dump = ("export", "dump", "deny_v4")
    assert said(raftctl(*exported, *dump)) == (
        0,
        "fw/deny/10.0.0.0/8\t1\nfw/deny/11.0.0.0/8\t7\n",
        "",
    )
    assert "--limit 2" in said(raftctl(*exported, *dump, "--limit", "1"))[2]
    data = json_of(raftctl(*exported, "-o", "json", *dump))
    assert [(item["key"], item["value"]) for item in data["entries"]] == [
        ("fw/deny/10.0.0.0/8", "1"),
        ("fw/deny/11.0.0.0/8", "7"),
    ]


def test_a_watch_shows_what_is_written_to_the_map(
    served: Served, exported: tuple[str, str]
) -> None:
    with Follower(*exported, "-o", "json", "export", "watch", "deny_v4") as follower:
        assert "Watching the map deny_v4" in follower.note()
        for event in (
            protocol.ExportEvent("put", "fw/deny/10.0.0.0/8", b"1", 0, 5),
            protocol.ExportEvent("delete", "fw/deny/10.0.0.0/8", b"", 0, 6),
        ):
            served.call(served.host.export_watchers[0], event)
        put_line, delete_line = json.loads(follower.line()), json.loads(follower.line())
    assert (put_line["type"], put_line["value"], put_line["index"]) == ("put", "1", 5)
    assert (delete_line["type"], delete_line["key"]) == ("delete", "fw/deny/10.0.0.0/8")


def test_a_map_that_is_removed_is_gone_and_its_keys_stay(exported: tuple[str, str]) -> None:
    put(exported, "fw/deny/10.0.0.0/8", "1")
    assert said(raftctl(*exported, "export", "remove", "deny_v4")) == (
        0,
        "✓ The map deny_v4 is exported no longer\n",
        "",
    )
    assert said(raftctl(*exported, "propose", "get", "fw/deny/10.0.0.0/8"))[1] == "1\n"


@pytest.mark.parametrize("command", ["remove", "dump", "watch"])
def test_a_map_that_is_not_exported_is_told(
    served: Served, at: tuple[str, str], command: str
) -> None:
    status, _, error = said(raftctl(*at, "export", command, "other"))
    assert status == 4
    assert "other" in error


def test_doctor_says_what_is_wrong_with_the_maps(served: Served, exported: tuple[str, str]) -> None:
    def finding() -> dict[str, str]:
        found = json_of(raftctl(*exported, "-o", "json", "doctor"))["findings"]
        (of_exports,) = [item for item in found if item["check"] == "exports"]
        return of_exports

    assert finding()["level"] == "ok"
    assert finding()["text"].startswith("1 exported maps, ready at index")
    served.host.fresh_ms = 0
    assert finding()["level"] == "warn"
    served.host.export_problem = "there is no group bpf-readers on this machine"
    assert finding()["level"] == "fail"
    assert finding()["text"].endswith(": there is no group bpf-readers on this machine")
    assert finding()["fix"].endswith("export list")


def test_doctor_says_nothing_of_maps_where_none_is_exported(at: tuple[str, str]) -> None:
    found = json_of(raftctl(*at, "-o", "json", "doctor"))["findings"]
    assert "exports" not in {item["check"] for item in found}
