"""`make demo`: a three-node cluster on this machine, used once by the commands that people use.

Every command is shown before it runs. The cluster stays up; `make demo-down` ends it.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
TEXT = "Hello from the RAFT cluster!"
KEY, VALUE = "greeting", "my value"


def raftctl(*arguments: str, show: bool = True) -> str:
    """What the command prints. Ends the demo with the command's status when it fails."""
    if show:
        print(f"\n$ raftctl {shlex.join(arguments)}", flush=True)
    # The demo talks to its own cluster, whatever this shell is set up for.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("RAFTCTL_")
    }
    done = subprocess.run(  # noqa: S603
        [BIN / "raftctl", *arguments],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if show:
        print(done.stdout, end="", flush=True)
    if done.returncode != 0:
        print(f"demo: raftctl {shlex.join(arguments)} failed", file=sys.stderr)
        sys.exit(done.returncode)
    return done.stdout


def main() -> int:
    raftctl("dev", "up", "--dir", ".demo")
    status = json.loads(raftctl("--node", "node-01", "-o", "json", "status", show=False))
    leader = status["leader"]
    names = sorted([status["node_id"], *status["peers"]])
    others = [name for name in names if name != leader]

    print(f"\n{leader} leads. Writes go to it:")
    raftctl("--node", leader, "send", TEXT)
    raftctl("--node", leader, "propose", "put", KEY, VALUE)

    print("\nBoth can be read on the other nodes:")
    for name in others:
        if raftctl("--node", name, "propose", "get", KEY) != f"{VALUE}\n":
            print(f"demo: {name} gave another value than was stored", file=sys.stderr)
            return 1
        if TEXT not in raftctl("--node", name, "messages", "--limit", "5"):
            print(f"demo: {name} does not have the message", file=sys.stderr)
            return 1

    print("\nThe cluster as each node sees it:")
    for name in names:
        raftctl("--node", name, "status")

    print(
        f"""
The cluster stays up. To go on:
  export PATH="{BIN}:$PATH"
  raftctl --node {others[0]} watch                  # leave it open in another terminal
  raftctl --node {leader} send "my own message"
  raftctl --node {leader} health
  raftctl --help
  make demo-down                                # ends it; the data stays in .demo"""
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
