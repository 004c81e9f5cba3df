from __future__ import annotations

import json
import time

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


def test_a_time_is_shown_in_this_machines_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC-2")
    time.tzset()
    try:
        assert output.local_time_of_day("2026-03-01T00:58:00.123Z") == "02:58:00"
    finally:
        monkeypatch.undo()
        time.tzset()


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
