"""Runs the operator: log, credentials for kopf, its loop."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
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
    kopf.on.login(registry=operator.registry)(log_in)
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


def log_in(**arguments: Any) -> kopf.ConnectionInfo | None:
    """How kopf reaches the API server: in a pod at the address that the kubelet names there, as the
    operator's own calls do, since kopf's own way takes a DNS in the cluster."""
    found = kopf.login_with_service_account(**arguments)
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if found is None:
        return kopf.login_with_kubeconfig(**arguments)
    if not host:
        return found
    return dataclasses.replace(
        found, server=f"https://{f'[{host}]' if ':' in host else host}:{port}"
    )


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
