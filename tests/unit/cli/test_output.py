from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import pytest

from raftctl import output
from raftctl.errors import CommandError
from raftctl.output import Output


def test_text_of_others_cannot_steer_the_terminal() -> None:
    assert output.printable("a\x1b[2Jb\nc\rd\x9be") == "a\\x1b[2Jb\\nc\\rd\\x9be"
    assert output.printable("tab\tund ünïcode ✓") == "tab\tund ünïcode ✓"


def test_bytes_that_are_no_text_are_shown_as_bytes() -> None:
    assert output.printable_bytes(b"ok \xff\n") == "ok \\xff\\n"


def test_a_value_is_text_or_base64() -> None:
    assert output.value_fields("grün".encode()) == {"value": "grün"}
    assert output.value_fields(b"\xff\x00") == {"value_base64": "/wA="}


@contextmanager
def _time_zone(monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[None]:
    monkeypatch.setenv("TZ", name)
    time.tzset()
    try:
        yield
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_time_is_shown_in_this_machines_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    with _time_zone(monkeypatch, "UTC-2"):
        assert output.local_time_of_day("2026-03-01T00:58:00.123Z") == "02:58:00"


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    rows = [("NAME", "ROLE", "X"), ("node-01", "voter", ""), ("n", "learner", "y")]
    assert output.table(rows) == "NAME     ROLE     X\nnode-01  voter\nn        learner  y"


def test_an_error_is_prose_on_stderr_and_an_object_on_stdout(
    capsys: pytest.CaptureFixture[str],
) -> None:
    failure = CommandError("Not leader", "not_leader", "Send to node-02", "node-02")
    Output("json").error("send", failure)
    captured = capsys.readouterr()
    assert captured.err == "✗ Failed to send: Not leader\n  Hint: Send to node-02\n"
    assert json.loads(captured.out) == {
        "error": "Not leader",
        "code": "not_leader",
        "hint": "Send to node-02",
        "leader": "node-02",
    }


def test_an_error_in_text_form_leaves_stdout_empty(capsys: pytest.CaptureFixture[str]) -> None:
    Output().error("send", CommandError("Broken"))
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "✗ Failed to send: Broken\n")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("not_leader", 1),
        ("conflict", 1),
        ("not_in_this_version", 1),
        ("timed_out", 1),
        ("unknown_outcome", 3),
        ("key_not_found", 4),
        ("not_reachable", 5),
        ("no_leader", 6),
    ],
)
def test_each_code_has_the_contracts_exit_status(code: str, status: int) -> None:
    assert CommandError("x", code).exit_status == status


def test_a_time_of_another_day_has_its_date(monkeypatch: pytest.MonkeyPatch) -> None:
    with _time_zone(monkeypatch, "UTC-2"):
        assert output.local_time("2020-03-01T23:58:00Z") == "2020-03-02 01:58:00"
        now = datetime.now().astimezone()
        assert output.local_time(now.isoformat()) == now.strftime("%H:%M:%S")
    assert output.local_time("soon") == "soon"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_people_at_a_terminal_are_told_of_the_other_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_terminal: bool
) -> None:
    """Programs get the contract's two lines."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal)
    failure = CommandError("Not leader", "not_leader", "Send from leader node: node-02", "node-02")
    failure.other_way = "Or have this node pass it on: raftctl --node node-01 --forward send …"
    Output(color=False).error("send", failure)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["✗ Failed to send: Not leader", "  Hint: Send from leader node: node-02"]
    assert lines[2:] == ([f"  {failure.other_way}"] if is_terminal else [])
