"""`raft-operator`: reads the command line and runs the operator until it is told to end.

Exit status: 0 ended as asked, 1 could not start or had to stop, 2 usage.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from raft_operator import __version__

LOG_LEVELS = ("debug", "info", "warning", "error")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    from raft_operator.run import run  # noqa: PLC0415  # --help need not load all of it

    return run(arguments)


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="raft-operator",
        description="Runs Raft clusters on Kubernetes, as RaftClusters ask for them. It talks to "
        "the cluster that it runs in, or else to that of KUBECONFIG or ~/.kube/config.",
    )
    found.add_argument(
        "--namespace",
        action="append",
        default=_words("RAFT_OPERATOR_NAMESPACE"),
        metavar="NAME",
        help="watch this namespace; may be given several times (default: all of them) "
        "[RAFT_OPERATOR_NAMESPACE, separated by commas]",
    )
    found.add_argument(
        "--liveness",
        default=os.environ.get("RAFT_OPERATOR_LIVENESS", ""),
        metavar="HOST:PORT",
        help="answer /healthz there while the operator sees what happens in the cluster "
        "(default: nowhere) [RAFT_OPERATOR_LIVENESS]",
    )
    found.add_argument(
        "--log-level",
        choices=LOG_LEVELS,
        default=os.environ.get("RAFT_OPERATOR_LOG_LEVEL", "info"),
        help="how much is logged (default info) [RAFT_OPERATOR_LOG_LEVEL]",
    )
    found.add_argument(
        "--log-format",
        choices=("text", "json"),
        default=os.environ.get("RAFT_OPERATOR_LOG_FORMAT", "text"),
        help="lines of text, or one JSON object a line (default text) [RAFT_OPERATOR_LOG_FORMAT]",
    )
    found.add_argument("--version", action="version", version=f"raft-operator {__version__}")
    return found


def _words(variable: str) -> list[str]:
    return [word for word in os.environ.get(variable, "").replace(",", " ").split() if word]


if __name__ == "__main__":
    sys.exit(main())
