"""Logging: one line per fact, each with node, term and role.

    2026-11-23T04:18:33.123Z INFO raft.transport node-02 t3 leader: connected to node-01

Modules ask for `logging.getLogger("raft.<part>")`. Everything is written where it is said, so the
term on a line is the term at that moment.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import TextIO

import msgspec

OFF = logging.CRITICAL + 10

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "off": OFF,
}

# What a level can be set for: the loggers that the program has, each with those below it.
PARTS = (
    "agent",
    "api",
    "audit",
    "config",
    "consensus",
    "http",
    "kernel",
    "machine",
    "runtime",
    "storage",
    "tls",
    "transport",
)

_ROOT = "raft"


class LogContext(msgspec.Struct):
    """Who speaks: the runtime keeps it up to date, every line carries it."""

    node: str = "-"
    term: int = 0
    role: str = "starting"


def parse_levels(text: str) -> dict[str, int]:
    """ "info,raft.transport=debug" as levels by logger name.

    A level alone is for all parts; a part may be named without its "raft.". Raises ValueError with
    a sentence when a level or a part is unknown.
    """
    levels: dict[str, int] = {}
    for item in filter(None, (word.strip() for word in text.split(","))):
        name, equals, level = item.rpartition("=")
        if level.strip().lower() not in LEVELS:
            raise ValueError(
                f'must hold levels like "info" or "info,raft.transport=debug"; "{level.strip()}" '
                f"is none of {', '.join(LEVELS)}"
            )
        levels[_logger_name(name.strip()) if equals else _ROOT] = LEVELS[level.strip().lower()]
    if not levels:
        raise ValueError('must be a level like "info"; it is empty')
    return levels


def _logger_name(name: str) -> str:
    part = name.removeprefix(f"{_ROOT}.")
    if part == _ROOT:
        return _ROOT
    if part.split(".")[0] in PARTS:
        return f"{_ROOT}.{part}"
    raise ValueError(
        f'must name parts of the agent: raft.{", raft.".join(PARTS)}; "{name}" is none of them'
    )


class _ContextFilter(logging.Filter):
    """Puts the context on every record, those of other libraries too."""

    def __init__(self, context: LogContext) -> None:
        super().__init__()
        self._context = context

    def filter(self, record: logging.LogRecord) -> bool:
        record.context = self._context
        return True


def _timestamp(record: logging.LogRecord) -> str:
    """RFC 3339, UTC, milliseconds."""
    seconds, fraction = divmod(int(record.created * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{fraction:03}Z"


# What strangers send may end up in a message: it must not fake lines nor drive a terminal.
_CONTROLS = (*range(0x20), *range(0x7F, 0xA0))
# Line and paragraph separators, and what turns the direction of the text (Unicode, UAX #9).
_TURNS = (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
_ESCAPES = {
    **{code: f"\\x{code:02x}" for code in _CONTROLS},
    **{code: f"\\u{code:04x}" for code in _TURNS},
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
}


def escape_controls(text: str) -> str:
    """`text` as one line that a terminal shows as it is."""
    return text.translate(_ESCAPES)


class TextFormatter(logging.Formatter):
    """One line; only a traceback adds more, indented."""

    def format(self, record: logging.LogRecord) -> str:
        context: LogContext = record.context  # type: ignore[attr-defined]
        line = (
            f"{_timestamp(record)} {record.levelname} {record.name} {context.node} "
            f"t{context.term} {context.role}: {escape_controls(record.getMessage())}"
        )
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            line += "".join(f"\n    {escape_controls(part)}" for part in trace.splitlines())
        return line


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, part, node, term, role, text, and exception if there is."""

    def format(self, record: logging.LogRecord) -> str:
        context: LogContext = record.context  # type: ignore[attr-defined]
        line = {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "part": record.name,
            "node": context.node,
            "term": context.term,
            "role": context.role,
            "text": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


FORMATTERS: dict[str, type[logging.Formatter]] = {"text": TextFormatter, "json": JsonFormatter}


def check_format(text: str) -> None:
    """Raises ValueError with a sentence when there is no such format."""
    if text not in FORMATTERS:
        raise ValueError(f'must be {" or ".join(FORMATTERS)}; "{text}" is neither')


_on_top: dict[str, int] = {}


def setup(
    levels: str,
    *,
    on_top: str = "",
    log_format: str = "text",
    context: LogContext,
    stream: TextIO | None = None,
) -> None:
    """Start to log to `stream` (stderr).

    `levels` come from the configuration and can be changed by `reload`; `on_top` (RAFT_LOG) wins
    over them for as long as the process lives. `log_format` is "text" or "json". Raises ValueError
    with a sentence, as `parse_levels` does, before anything is changed.
    """
    parse_levels(levels)
    check_format(log_format)
    wins = parse_levels(on_top) if on_top.strip() else {}
    _on_top.clear()
    _on_top.update(wins)
    # Costs per record for what no line shows; the cookbook's "Optimization" names these switches.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    if hasattr(logging, "logAsyncioTasks"):
        logging.logAsyncioTasks = False
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.addFilter(_ContextFilter(context))
    handler.setFormatter(FORMATTERS[log_format]())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # other libraries: asyncio
    reload(levels)


def reload(levels: str) -> None:
    """Put other levels in force, at once. Raises ValueError as `parse_levels` does."""
    wanted = {_ROOT: logging.INFO} | parse_levels(levels) | _on_top
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(f"{_ROOT}.") and name not in wanted:
            logging.getLogger(name).setLevel(logging.NOTSET)
    for name, level in wanted.items():
        logging.getLogger(name).setLevel(level)
