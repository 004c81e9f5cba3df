"""`make demo`: a three-node cluster on this machine, used once by the commands that people use.

Every command is shown before it runs. The cluster stays up; `make demo-down` ends it.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
TEXT = "Hello from the RAFT cluster!"
KEY, VALUE = "greeting", "my value"


REFUSED = (1, 6)  # exit statuses that say that nothing was changed


def run(*arguments: str, show: bool = True) -> tuple[int, str]:
    """The command's exit status and what it printed."""
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
    return done.returncode, done.stdout


def raftctl(*arguments: str, show: bool = True) -> str:
    """What the command prints. Ends the demo with the command's status when it fails."""
    status, output = run(*arguments, show=show)
    if status != 0:
        print(f"demo: raftctl {shlex.join(arguments)} failed", file=sys.stderr)
        sys.exit(status)
    return output


def on_leader(*arguments: str) -> str:
    """Runs a write on the leader, again when leadership moved meanwhile; the leader's name."""
    for _ in range(5):
        seen = json.loads(raftctl("--node", "node-01", "-o", "json", "status", show=False))
        if seen["leader"] is None:
            time.sleep(0.2)
            continue
        status, _ = run("--node", seen["leader"], *arguments)
        if status == 0:
            return str(seen["leader"])
        if status not in REFUSED:
            sys.exit(status)
    print("demo: no leader took the write", file=sys.stderr)
    sys.exit(1)


def main() -> int:
    raftctl("dev", "up", "--dir", ".demo")
    status = json.loads(raftctl("--node", "node-01", "-o", "json", "status", show=False))
    names = sorted([status["node_id"], *status["peers"]])

    print(f"\n{status['leader']} leads. Writes go to it:")
    on_leader("send", TEXT)
    leader = on_leader("propose", "put", KEY, VALUE)
    others = [name for name in names if name != leader]

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
