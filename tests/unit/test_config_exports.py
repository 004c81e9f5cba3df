"""[[ebpf.export]] in raft.toml, and how long a copy of a map counts as fresh."""

from __future__ import annotations

from pathlib import Path

import pytest

from raft_agent.config.model import ExportSeed
from tests.unit.config_files import SERVER, read, refusal

EXPORT = """\
[[ebpf.export]]
prefix = "fw/deny/"
map = "deny_v4"
kind = "lpm_trie"
key = "ipv4_prefix"
value = "u32"
"""
LINES = len(SERVER.splitlines())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "raft.toml"


def test_maps_to_be_exported_are_read_in_their_order(file: Path) -> None:
    ports = '[[ebpf.export]]\nprefix = "p/"\nmap = "ports"\nkey = "u32"\nvalue = "u8"\n'
    more = 'max_entries = 5\ngroup = "readers"\nwith_revision = true\n'
    assert read(file, SERVER + EXPORT + ports + more).exports == (
        ExportSeed(
            prefix="fw/deny/", map="deny_v4", kind="lpm_trie", key="ipv4_prefix", value="u32"
        ),
        ExportSeed(
            prefix="p/",
            map="ports",
            key="u32",
            value="u8",
            max_entries=5,
            group="readers",
            with_revision=True,
        ),
    )


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ('map = "deny_v4"', 'map = "Deny"', 3, "lower-case letter"),
        ('"u32"', '"u33"', 3, "u33"),
        ('value = "u32"', "value = 5", 6, "the exported map's value must be a string, but is 5"),
        (
            'value = "u32"',
            "values = 5",
            6,
            "unknown key values of an exported map; they are prefix",
        ),
        ('value = "u32"\n', "", 1, "this exported map has no value"),
        ('kind = "lpm_trie"', 'kind = "hash"', 3, "no prefix type, not ipv4_prefix"),
        ('"u32"\n', '"u32"\nmax_entries = 0\n', 7, "max_entries must be from 1"),
        ("[[ebpf.export]]", "[ebpf.export]", 1, "write [[ebpf.export]]"),
    ],
)
def test_a_map_that_can_not_be_exported_is_refused_with_its_line(
    file: Path, old: str, new: str, line: int, says: str
) -> None:
    text = refusal(file, SERVER + EXPORT.replace(old, new))
    assert f"raft.toml:{LINES + line}: " in text
    assert says in text


def test_two_maps_have_neither_name_nor_keys_in_common(file: Path) -> None:
    same = EXPORT.replace("fw/deny/", "other/")
    assert 'Two maps can\'t have the name "deny_v4"' in refusal(file, SERVER + EXPORT + same)
    below = EXPORT.replace("deny_v4", "more").replace("fw/deny/", "fw/")
    assert "have keys in common" in refusal(file, SERVER + EXPORT + below)


def test_a_copy_has_to_count_as_fresh_for_some_heartbeats(file: Path) -> None:
    assert refusal(file, SERVER + "[ebpf]\nfresh_ms = 249\n") == (
        f"raft.toml:{LINES + 2}: ebpf.fresh_ms (249) must be at least 250, 5 heartbeat intervals: "
        "how current a node is is known a few heartbeats later"
    )
    assert read(file, SERVER + "[ebpf]\nfresh_ms = 250\n").ebpf.fresh_ms == 250


def test_the_usual_time_is_refused_only_where_somebody_exports_something(file: Path) -> None:
    slow = "[timing]\nheartbeat_interval_ms = 400\nelection_timeout_min_ms = 1200\n"
    slow += "election_timeout_max_ms = 2400\n"
    assert not read(file, SERVER + slow).notes
    pinned = '[ebpf]\nenabled = true\npin_dir = "/sys/fs/bpf/raft"\n'
    (note,) = read(file, SERVER + slow + pinned).notes
    assert "ebpf.fresh_ms (1000, the default) must be at least 2000" in note
    assert "must be at least 2000" in refusal(file, SERVER + slow + pinned + EXPORT)
