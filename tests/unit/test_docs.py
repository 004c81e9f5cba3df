"""What the documents tell people to type exists, and runs unless it says why not."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tools import cli_docs, config_docs, metrics_docs

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
    *sorted((ROOT / "ansible").rglob("*.md")),
    *sorted((ROOT / "lima").rglob("*.md")),
    *sorted((ROOT / "charts").rglob("*.md")),
]
# Programs of other machines than that of the tests: a Mac's, a board's, a server's, those of
# whoever has a Kubernetes.
ELSEWHERE = {
    "brew",
    "helm",
    "kubectl",
    "limactl",
    "lsblk",
    "mkfs.ext4",
    "pip",
    "podman",
    "scp",
    "ssh-copy-id",
    "ssh-keygen",
    "systemctl",
    "ufw",
    "useradd",
}
BUILTINS = {"cd", "export"}
_BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?```(?P<kind>sh|console)\n(?P<text>.*?)^```",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One block of commands; `reason`: why it is not run."""

    where: str
    lines: tuple[str, ...]
    reason: str | None


def commands_of(lines: tuple[str, ...]) -> Iterator[str]:
    """Without comments, and without what commands are given to read."""
    end = None
    for line in lines:
        if end is not None:
            end = None if line == end else end
        elif line.strip() and not line.startswith("#"):
            yield line
            found = re.search(r"<<'(\w+)'", line)
            end = found and found[1]


def blocks() -> Iterator[Block]:
    for document in DOCUMENTS:
        text = document.read_text()
        for match in _BLOCK.finditer(text):
            line = text[: match.start("text")].count("\n")
            lines = match["text"].replace("\\\n", " ").splitlines()
            if match["kind"] == "console":
                lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
            where = f"{document.relative_to(ROOT)}:{line}"
            yield Block(where, tuple(lines), match["reason"])


BLOCKS = list(blocks())
COMMANDS = [(block.where, command) for block in BLOCKS for command in commands_of(block.lines)]


def answers_help(words: list[str]) -> str:
    """Has the program read its arguments and explain itself instead of doing anything."""
    program = BIN / Path(words[0]).name
    done = subprocess.run(
        [program, *words[1:], "--help"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("where", "command"), COMMANDS)
def test_a_command_in_the_documents_exists(where: str, command: str) -> None:
    words = shlex.split(command, comments=True)
    while words and re.fullmatch(r"sudo|\w+=.*", words[0]):
        del words[0]
        if words[:1] == ["-u"]:
            del words[:2]
    program = Path(words[0]).name
    if program == "make":
        targets = re.findall(r"^([a-z0-9-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert [word for word in words[1:] if "=" not in word and word not in targets] == []
    elif program in {"raftctl", "raft-agent"}:
        explanation = answers_help(words).split("Options:")[0]
        assert program == "raft-agent" or "not in this version" not in explanation
    else:
        known = (
            program in ELSEWHERE | BUILTINS or (ROOT / words[0]).exists() or shutil.which(words[0])
        )
        assert known, words[0]


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.reason is None], ids=lambda block: block.where
)
def test_a_block_runs(block: Block) -> None:
    done = subprocess.run(
        ["bash", "-euc", "\n".join(block.lines)],
        cwd=ROOT,
        env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT))
)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", document.read_text())
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (document.parent / link).exists()] == []


def test_the_page_of_keys_is_what_the_code_says() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert page == config_docs.page(), "run make docs"


def test_the_page_of_metrics_is_what_the_code_says() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert page == metrics_docs.page(), "run make docs"


def test_the_page_of_commands_is_what_help_says() -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    assert page == cli_docs.page(), "run make docs"
