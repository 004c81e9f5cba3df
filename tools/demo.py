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
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
FOLDER = ".demo"
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
        seen = status("node-01")
        if seen["leader"] is None:
            time.sleep(0.2)
            continue
        code, _ = run("--node", seen["leader"], *arguments)
        if code == 0:
            return str(seen["leader"])
        if code not in REFUSED:
            sys.exit(code)
    print("demo: no leader took the write", file=sys.stderr)
    sys.exit(1)


def status(name: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(raftctl("--node", name, "-o", "json", "status", show=False))
    return told


def strangers(names: list[str]) -> list[str]:
    """Those of the nodes that do not belong to the cluster: removed, or never joined."""
    seen = map(status, names)
    return [told["node_id"] for told in seen if told["removed"] or not told["cluster_id"]]


def nodes() -> list[str]:
    """The names of the nodes whose files are there."""
    return sorted(config.parent.name for config in (ROOT / FOLDER).glob("node-*/raft.toml"))


def main() -> int:
    raftctl("dev", "up", *([] if nodes() else ["--http"]), "--dir", FOLDER)
    names = nodes()
    if found := strangers(names):
        verb = "is no member" if len(found) == 1 else "are no members"
        print(
            f"demo: {', '.join(found)} {verb} of the cluster in {FOLDER}. It runs; to begin anew:\n"
            f"  make demo-down; rm -r {FOLDER}; make demo",
            file=sys.stderr,
        )
        return 1

    print(f"\n{status(names[0])['leader']} leads. Writes go to it:")
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
  raftctl --node {leader} top
  raftctl --help
  make demo-down                                # ends it; the data stays in {FOLDER}"""
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
