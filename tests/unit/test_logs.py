"""One line per fact, with node, term and role, and levels that can be changed part by part."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from raft_agent import logs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def other_logging() -> Iterator[None]:
    """Puts back what pytest and others had set up."""
    root = logging.getLogger()
    kept = (list(root.handlers), root.level)
    yield
    root.handlers[:], level = kept
    root.setLevel(level)
    for name in list(logging.root.manager.loggerDict):
        if name.split(".")[0] == "raft":
            logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def context() -> logs.LogContext:
    return logs.LogContext(node="node-02", term=3, role="leader")


def test_a_line_has_time_level_part_node_term_role_and_text(
    stream: io.StringIO, context: logs.LogContext
) -> None:
    logs.setup("info", context=context, stream=stream)
    logging.getLogger("raft.transport").info("connected to %s", "node-01")
    assert re.fullmatch(
        r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\d\dZ "
        r"INFO raft\.transport node-02 t3 leader: connected to node-01\n",
        stream.getvalue(),
    )


def test_the_time_is_utc_with_milliseconds(stream: io.StringIO, context: logs.LogContext) -> None:
    logs.setup("info", context=context, stream=stream)
    record = logging.makeLogRecord({"name": "raft.api", "msg": "x", "levelname": "INFO"})
    record.created = 1_795_407_513.0625
    logging.getLogger().handlers[0].handle(record)
    assert stream.getvalue().startswith("2026-11-23T04:18:33.062Z ")


def test_a_line_carries_the_context_of_its_moment(
    stream: io.StringIO, context: logs.LogContext
) -> None:
    logs.setup("info", context=context, stream=stream)
    log = logging.getLogger("raft.runtime")
    log.info("a")
    context.term, context.role = 4, "follower"
    log.info("b")
    first, second = stream.getvalue().splitlines()
    assert first.endswith("t3 leader: a")
    assert second.endswith("t4 follower: b")


def test_strangers_can_not_fake_lines_or_drive_the_terminal(
    stream: io.StringIO, context: logs.LogContext
) -> None:
    logs.setup("info", context=context, stream=stream)
    name = "a\nERROR b\x1b[2J\x9b\t\u2028\u202eb\u2066"
    logging.getLogger("raft.transport").info("hello from %s", name)
    shown = "a\\nERROR b\\x1b[2J\\x9b\\t\\u2028\\u202eb\\u2066"
    assert stream.getvalue().endswith(f": hello from {shown}\n")
    assert len(stream.getvalue().splitlines()) == 1


def test_json_has_one_object_a_line(stream: io.StringIO, context: logs.LogContext) -> None:
    logs.setup("info", log_format="json", context=context, stream=stream)
    logging.getLogger("raft.storage").warning('torn "tail"\n cut')
    try:
        raise OSError("disk")
    except OSError:
        logging.getLogger("raft.storage").exception("failed")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "warning",
        "part": "raft.storage",
        "node": "node-02",
        "term": 3,
        "role": "leader",
        "text": 'torn "tail"\n cut',
    }
    assert second["exception"].endswith("OSError: disk")


def test_a_traceback_follows_indented(stream: io.StringIO, context: logs.LogContext) -> None:
    logs.setup("info", context=context, stream=stream)
    try:
        raise OSError("disk\nfull")
    except OSError:
        logging.getLogger("raft.storage").exception("failed")
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("ERROR raft.storage node-02 t3 leader: failed")
    assert rest[0] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") for line in rest)


def test_a_part_can_have_a_level_of_its_own(stream: io.StringIO, context: logs.LogContext) -> None:
    logs.setup("warning,raft.transport=debug,storage=off", context=context, stream=stream)
    for name in ("transport", "transport.peer", "storage", "api"):
        logging.getLogger(f"raft.{name}").debug("debug")
        logging.getLogger(f"raft.{name}").error("error")
    said = re.findall(r" raft\.(\S+) .*: (\w+)$", stream.getvalue(), re.MULTILINE)
    assert said == [
        ("transport", "debug"),
        ("transport", "error"),
        ("transport.peer", "debug"),
        ("transport.peer", "error"),
        ("api", "error"),
    ]


def test_debug_is_for_our_parts_and_not_for_libraries(
    stream: io.StringIO, context: logs.LogContext
) -> None:
    logs.setup("debug", context=context, stream=stream)
    logging.getLogger("asyncio").info("selector")
    assert stream.getvalue() == ""
    logging.getLogger("asyncio").error("exception was never retrieved")
    assert " ERROR asyncio node-02 t3 leader: " in stream.getvalue()


def test_reload_changes_levels_at_once_and_forgets_the_old_ones(context: logs.LogContext) -> None:
    logs.setup("info,raft.transport=debug", context=context, stream=io.StringIO())
    transport, storage = logging.getLogger("raft.transport"), logging.getLogger("raft.storage")
    assert transport.isEnabledFor(logging.DEBUG)
    assert not storage.isEnabledFor(logging.DEBUG)
    logs.reload("warning,raft.storage=debug")
    assert not transport.isEnabledFor(logging.INFO)
    assert storage.isEnabledFor(logging.DEBUG)


def test_the_filter_from_the_environment_stays_on_top_of_a_reload(
    context: logs.LogContext,
) -> None:
    logs.setup("info", on_top="raft.api=debug", context=context, stream=io.StringIO())
    logs.reload("error,raft.api=error")
    assert logging.getLogger("raft.api").isEnabledFor(logging.DEBUG)
    assert not logging.getLogger("raft.transport").isEnabledFor(logging.WARNING)


def test_a_wrong_reload_changes_nothing(context: logs.LogContext) -> None:
    logs.setup("debug", context=context, stream=io.StringIO())
    with pytest.raises(ValueError, match="loud"):
        logs.reload("loud")
    assert logging.getLogger("raft.api").isEnabledFor(logging.DEBUG)


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("info", {"raft": logging.INFO}),
        (" DEBUG ,", {"raft": logging.DEBUG}),
        ("raft.transport=debug", {"raft.transport": logging.DEBUG}),
        ("warn,api=off", {"raft": logging.WARNING, "raft.api": logs.OFF}),
        ("raft=error,raft.api.server=info", {"raft": 40, "raft.api.server": 20}),
    ],
)
def test_levels_are_read(text: str, levels: dict[str, int]) -> None:
    assert logs.parse_levels(text) == levels


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is empty"),
        ("loud", '"loud" is none of'),
        ("info,raft.transport=", '"" is none of'),
        ("raft.trnsport=debug", '"raft.trnsport" is none of them'),
        ("=debug", '"" is none of them'),
    ],
)
def test_a_wrong_level_or_part_is_named(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        logs.parse_levels(text)


def test_an_unknown_format_is_refused(context: logs.LogContext) -> None:
    with pytest.raises(ValueError, match="text or json"):
        logs.setup("info", log_format="xml", context=context)


def test_every_logger_of_the_agent_belongs_to_a_part_that_can_be_named() -> None:
    used = set()
    for source in (ROOT / "node_agent" / "raft_agent").rglob("*.py"):
        used |= set(re.findall(r'getLogger\("([\w.]+)"\)', source.read_text()))
    assert {name.split(".")[0] for name in used} == {"raft"}
    assert {name.split(".")[1] for name in used} <= set(logs.PARTS)
