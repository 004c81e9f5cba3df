"""Runs the operator: log, credentials for kopf, its loop."""

from __future__ import annotations

import argparse
import json
import logging
import socket
import sys
from typing import Any, cast

import kopf

from raft_operator.handlers import Operator
from raft_operator.names import MANAGER
from raft_operator.times import utc_text

log = logging.getLogger("raft.operator")

EXIT_FAILED, EXIT_USAGE = 1, 2


def run(arguments: argparse.Namespace) -> int:
    """Until SIGTERM or SIGINT."""
    liveness = arguments.liveness
    if liveness and not _is_address(liveness):
        print(f'raft-operator: --liveness {liveness}: write "HOST:PORT"', file=sys.stderr)
        return EXIT_USAGE
    set_up_log(arguments.log_level, arguments.log_format)
    namespaces = tuple(dict.fromkeys(arguments.namespace))
    operator = Operator(namespaces)
    kopf.on.login(registry=operator.registry)(_log_in)
    try:
        kopf.run(
            registry=operator.registry,
            standalone=True,
            clusterwide=not namespaces,
            namespaces=namespaces,
            # kopf would make it from the user's name, and a container's user may have none.
            identity=cast("Any", f"{MANAGER}@{socket.gethostname()}"),
            liveness_endpoint=f"http://{liveness}/healthz" if liveness else None,
        )
    except Exception as error:
        # What the start-up says is for people, and needs no traceback.
        why = error.__cause__ if isinstance(error.__cause__, kopf.PermanentError) else None
        log.error("the operator ends: %s", why or error, exc_info=why is None)
        return EXIT_FAILED
    return 0


def _log_in(**arguments: Any) -> kopf.ConnectionInfo | None:
    return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) <= 65535


def set_up_log(level: str, form: str) -> None:
    """Lines on stderr, as the agents write them."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if form == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    if level != "debug":
        # What kopf does with its watches is for those who look for faults in it.
        for name in ("kopf", "aiohttp", "asyncio"):
            logging.getLogger(name).setLevel(logging.WARNING)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = f"{utc_text(record.created)} {record.levelname} {record.name}: "
        text += record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        found = {
            "time": utc_text(record.created),
            "level": record.levelname.lower(),
            "part": record.name,
            "text": record.getMessage(),
        }
        if record.exc_info:
            found["traceback"] = self.formatException(record.exc_info)
        return json.dumps(found)
