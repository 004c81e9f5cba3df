"""Every parser of foreign bytes against inputs near valid ones, and against past findings.

Always the same inputs, so that nothing fails by chance; `make fuzz` looks for others.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raft_agent.api import protocol
from tests.fuzz.catalogue import TARGETS
from tests.fuzz.mutations import inputs
from tests.fuzz.report import read, table
from tests.fuzz.samples import requests
from tests.fuzz.targets.clients import take_replies

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(__file__).resolve().parent / "corpus"
FINDINGS = sorted(file for file in CORPUS.glob("*/*") if file.is_file())


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_near_a_valid_input_is_taken_or_refused(name: str) -> None:
    target = TARGETS[name]
    for seed in target.seeds():
        target.run(seed)

    @settings(
        max_examples=150,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def search(data: st.DataObject) -> None:
        target.run(data.draw(inputs(target)))

    search()


@pytest.mark.parametrize("file", FINDINGS, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_what_was_found_once_stays_mended(file: Path) -> None:
    TARGETS[file.parent.name].run(file.read_bytes())


def test_findings_belong_to_targets() -> None:
    assert {file.parent.name for file in FINDINGS} <= TARGETS.keys()
    assert FINDINGS


def test_the_samples_have_every_op_once() -> None:
    kinds = [type(request) for request in requests()]
    assert set(kinds) == protocol.RESULT_TYPES.keys()
    assert len(kinds) == len(set(kinds))


def test_a_target_says_when_its_parser_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The nets themselves: with a fault planted, the search finds it."""
    monkeypatch.setattr("raft_agent.api.answers.AnswerUnreadable", ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        take_replies(b"\x00\x00\x91\x93\x01\xc0\xc0")


OUTPUT = """
#2\tINITED cov: 52 ft: 60 corp: 3/1b exec/s: 0 rss: 40Mb
#9\tNEW    cov: 77 ft: 90 corp: 4/9b lim: 4 exec/s: 0 rss: 41Mb L: 4/4 MS: 1 Custom-
stat::number_of_executed_units: 2150
stat::peak_rss_mb:              84
"""


def test_a_run_is_read_from_what_libfuzzer_says() -> None:
    run = read("frames", 12.2, OUTPUT, ())
    assert (run.executions, run.coverage, run.peak_mib) == (2150, 77, 84)
    assert "| `frames` | 12 | 2,150 | 77 | 84 | 0 |" in table([run])


def test_every_decoder_of_foreign_bytes_is_behind_a_target() -> None:
    """Who adds a parser in a module that no target imports, adds a target."""
    parsers = {
        file
        for tree in ("node_agent", "cli")
        for file in (ROOT / tree).rglob("*.py")
        if any(word in file.read_text() for word in ("Decoder(", "msgpack.decode(", "json.decode("))
    }
    assert {file.name for file in parsers} == {
        # Behind targets.
        *("answers.py", "codec.py", "commands.py", "handshake.py", "judge.py", "membership.py"),
        *("blocks.py", "numbers.py", "protocol.py", "salvage.py", "txn_file.py"),
        # Replies of other members: what `answers` reads, with the same decoders of `protocol`.
        *("changes.py", "feed.py", "joining.py", "memberships.py"),
        # What processes of `raftctl bench` tell each other, and what it counts of replies.
        *("bench_load.py", "bench_stats.py"),
    }


def test_targets_have_names_of_their_own_and_say_what_holds() -> None:
    for name, target in TARGETS.items():
        assert target.run.__doc__ or name in ("requests", "requests_json")
    source = (Path(__file__).parent / "catalogue.py").read_text()
    imported = {
        alias.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.module == "tests.fuzz.targets"
        for alias in node.names
    }
    there = {file.stem for file in (Path(__file__).parent / "targets").glob("*.py")}
    assert imported == there
