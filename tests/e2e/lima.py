"""The stand-in for limactl (limactl.py) as a program, and what it was called with."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.e2e import limactl

ROOT = Path(__file__).resolve().parents[2]


class StandIn:
    """A limactl of its own, whose state is in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "lima"
        programs = folder / "bin"
        programs.mkdir(parents=True)
        program = programs / "limactl"
        command = shlex.join([sys.executable, limactl.__file__])
        program.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        program.chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "LIMA_HOME": str(self.home),
            "ANSIBLE_CONFIG": str(ROOT / "ansible" / "ansible.cfg"),
        }

    def calls(self) -> list[list[str]]:
        """The words of each call that changes something, in order."""
        lines = (self.home / "calls.jsonl").read_text().splitlines()
        return [words for words in map(json.loads, lines) if words != ["list", "--json"]]

    def play(
        self, playbook: str, *options: str, before: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """ansible-playbook with the dynamic inventory; `before`: what the command begins with."""
        program = Path(sys.executable).with_name("ansible-playbook")
        return subprocess.run(
            [*before, program, "-i", "inventory/lima.py", playbook, *options],
            cwd=ROOT / "ansible",
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
