"""The mutator works: it makes real changes, holds trials, and tells who survived."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.mutations import CONSENSUS, MODULES, Mutant, mutants_of, parse

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.sim.mutator", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def named(module: str, operator: str, before: str) -> Mutant:
    (found,) = (
        mutant
        for mutant in mutants_of(module)
        if mutant.operator == operator and mutant.before == before
    )
    return found


@pytest.mark.parametrize("module", MODULES)
def test_every_mutant_is_another_program_that_compiles(module: str) -> None:
    source = (CONSENSUS / f"{module}.py").read_text()
    unchanged = ast.unparse(parse(module))
    mutants = mutants_of(module)
    assert len(mutants) >= 10
    for mutant in mutants[::7]:
        tree = mutant.tree()
        assert ast.unparse(tree) != unchanged, mutant.name
        compile(tree, f"{module}.py", "exec")
        assert 0 <= mutant.line <= len(source.splitlines())


def test_the_mutants_are_the_same_each_time() -> None:
    names = [mutant.name for mutant in mutants_of("quorum")]
    assert names == [mutant.name for mutant in mutants_of("quorum")]
    assert any("> len(voters) // 2  →" in name for name in names)


def test_a_mutant_differs_in_one_place() -> None:
    mutant = named("transfer", "statement removed", "leadership.transfer = None")
    before = ast.unparse(parse("transfer")).splitlines()
    after = ast.unparse(mutant.tree()).splitlines()
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert [(a.strip(), b.strip()) for a, b in changed] == [("leadership.transfer = None", "pass")]


def test_lines_for_peoples_logs_are_left_out() -> None:
    for module in MODULES:
        for mutant in mutants_of(module):
            assert ".note(" not in mutant.before or mutant.before.startswith(
                ("if ", "for ", "while ")
            )


def test_a_sample_of_mutants_is_tried_and_survivors_are_named() -> None:
    tried = run("--module", "quorum", "--sample", "10", "--rng-seed", "1", "--seeds", "0:2")
    assert tried.returncode == 0, tried.stderr
    assert "| quorum | 10 |" in tried.stdout
    killed = int(tried.stdout.splitlines()[-1].split(" of 10 killed")[0])
    assert killed >= 9, tried.stdout


def test_a_mutant_that_nobody_can_notice_survives() -> None:
    """The number of a round of reads is written before it is read, whatever it begins with."""
    line = next(
        number
        for number, text in enumerate((CONSENSUS / "leadership.py").read_text().splitlines(), 1)
        if "self.round_request_id = 0" in text
    )
    tried = run("--module", "leadership", "--lines", str(line), "--seeds", "0:2", "--at-least", "1")
    assert tried.returncode == 1, tried.stderr
    assert "survived: leadership.py" in tried.stdout
    assert "0 of 1 killed" in tried.stdout
