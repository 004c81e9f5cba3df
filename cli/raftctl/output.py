"""How results, errors and prose reach the terminal or the program that reads them."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import sys
from collections.abc import Sequence

import click

from raftctl.errors import CommandError

FORMATS = ("text", "json", "yaml")

_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f]")
_ESCAPES = {"\n": "\\n", "\r": "\\r"}


def printable(text: str) -> str:
    """`text` on one line, without characters that would steer the terminal: others wrote it."""
    return _CONTROL.sub(lambda m: _ESCAPES.get(m.group()) or f"\\x{ord(m.group()):02x}", text)


def printable_bytes(value: bytes) -> str:
    """The same for a stored value; bytes that are no UTF-8 become \\xNN."""
    return printable(value.decode("utf-8", "backslashreplace"))


def tabbed(*columns: str | bytes) -> str:
    """One line of printable columns with tabs between them, and none in them."""
    shown = (
        printable_bytes(column) if isinstance(column, bytes) else printable(column)
        for column in columns
    )
    return "\t".join(column.replace("\t", "\\t") for column in shown)


def value_fields(value: bytes) -> dict[str, object]:
    """`value` when it is UTF-8, else `value_base64`, as the contract names them."""
    try:
        return {"value": value.decode()}
    except UnicodeDecodeError:
        return {"value_base64": base64.b64encode(value).decode()}


def to_json(value: object) -> str:
    """One line of JSON. `value` may hold msgspec structs."""
    import msgspec  # noqa: PLC0415  # not for --help

    return msgspec.json.encode(value).decode()


def local_time_of_day(rfc3339: str) -> str:
    """ "[02:58:00]" without the brackets, in this machine's time zone."""
    from datetime import datetime  # noqa: PLC0415  # only a few commands show times

    try:
        return datetime.fromisoformat(rfc3339).astimezone().strftime("%H:%M:%S")
    except ValueError:
        return rfc3339


def local_time(rfc3339: str) -> str:
    """The same, with the date in front unless it is today's: "2026-03-01 02:58:00"."""
    from datetime import datetime  # noqa: PLC0415

    try:
        moment = datetime.fromisoformat(rfc3339).astimezone()
    except ValueError:
        return rfc3339
    is_today = moment.date() == datetime.now().astimezone().date()
    return moment.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M:%S")


def agent_text(agent: str, knows: tuple[int, int] | None) -> str:
    """Which raft-agent a member runs, and the cluster versions that it knows: "0.1.0 (1)"."""
    if not agent or knows is None:
        return "-"
    oldest, newest = knows
    return printable(f"{agent} ({newest})" if oldest == newest else f"{agent} ({oldest}-{newest})")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, two spaces apart; the first row is the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


class ResultNotWrittenError(Exception):
    """Standard output takes no more; `reason` is the system's error."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(reason.strerror)
        self.reason = reason


def give_up_stdout() -> None:
    """What is still in the buffer goes nowhere: Python would fail with it again at its end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


class Output:
    """Writes in the format that was asked for. `form` is one of FORMATS; `color` False: never."""

    def __init__(self, form: str = "text", color: bool = True) -> None:
        self.form = form
        self.color = color and "NO_COLOR" not in os.environ

    @property
    def is_text(self) -> bool:
        return self.form == "text"

    def prose(self, text: str) -> None:
        """Progress and notes: standard output in text form, else standard error."""
        if self.is_text:
            self._write(text)
        else:
            self.note(text)

    def note(self, text: str) -> None:
        """What must never mix with results. Where nobody can read it, it is left out."""
        with contextlib.suppress(OSError):
            click.echo(text, err=True, color=self._color())

    def result(self, text: str, data: object) -> None:
        """`text` for people, or `data` (plain data or msgspec structs) as one object."""
        if self.is_text:
            self._write(text)
        elif self.form == "json":
            self._write(to_json(data))
        else:
            import msgspec  # noqa: PLC0415

            from raftctl import yaml  # noqa: PLC0415

            self._write(yaml.dump(msgspec.to_builtins(data)), newline=False)

    def item(self, text: str, data: object) -> None:
        """One of many: a line of text, or one JSON object on a line in both machine formats."""
        self._write(text if self.is_text else to_json(data))

    def raw(self, data: bytes) -> None:
        """Bytes as they are, to standard output."""
        self._write(data, newline=False)

    def mark(self, good: bool) -> str:
        """✓ or ✗, coloured on a terminal."""
        return self.colored("✓", "green") if good else self.colored("✗", "red")

    def colored(self, text: str, color: str) -> str:
        return click.style(text, fg=color) if self.color else text

    def error(self, action: str, failure: CommandError) -> None:
        """Prose on standard error; the error object on standard output in the machine formats."""
        lines = [f"{self.mark(False)} Failed to {action}: {printable(failure.error)}"]
        lines += [f"    {printable(line)}" for line in failure.details]
        if failure.hint:
            lines.append(f"  Hint: {printable(failure.hint)}")
        if failure.other_way and sys.stderr is not None and sys.stderr.isatty():
            lines.append(f"  {printable(failure.other_way)}")
        self.note("\n".join(lines))
        if not self.is_text:
            data = {
                "error": failure.error,
                "code": failure.code,
                "hint": failure.hint,
                "leader": failure.leader or None,
            }
            self.result("", data)

    def _write(self, text: str | bytes, newline: bool = True) -> None:
        """To standard output, at once. Raises ResultNotWrittenError."""
        try:
            click.echo(text, nl=newline, color=self._color())
        except OSError as failure:
            give_up_stdout()
            raise ResultNotWrittenError(failure) from failure

    def _color(self) -> bool | None:
        return None if self.color else False
