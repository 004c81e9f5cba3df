"""In which line of a TOML text a key stands.

tomllib keeps no positions. But a prefix of whole lines parses exactly when it ends between two
statements, so parsing ever longer prefixes shows which statement brought which key, whatever the
style: tables, dotted keys, inline tables. That is quadratic, and done for people who wait for an
error message only.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator

KeyPath = tuple[str | int, ...]

_BARE_VALUE = re.compile(r"\s*([\w.-]+)\s*=\s*([^\s\"'\[{#][^\"'#]*?)\s*(?:#.*)?")

_MAX_LINES = 1000

_HEADER = re.compile(r"\s*(\[[^\]]*\]+)")
_KEY = re.compile(r"\s*([\w.\"'-]+)\s*=")


def find_lines(text: str) -> dict[KeyPath, int]:
    """The line (from 1) of each table, array element and key of `text`, a valid TOML document;
    nothing of one so long that it would take minutes."""
    found: dict[KeyPath, int] = {}
    lines = text.splitlines(keepends=True)
    if len(lines) > _MAX_LINES:
        return found
    statement_starts = 1
    for end in range(1, len(lines) + 1):
        try:
            document = tomllib.loads("".join(lines[:end]))
        except ValueError:  # also TOMLDecodeError
            continue
        for path in _paths(document, ()):
            found.setdefault(path, statement_starts)
        statement_starts = end + 1
    return found


def line_of_syntax_error(
    error: tomllib.TOMLDecodeError, text: str, is_secret: Callable[[str], bool]
) -> tuple[int, str]:
    """The line that tomllib complains about, and its complaint without the position. `is_secret`:
    whether the value of a key is not to be shown."""
    message = str(error)
    lines = text.splitlines()
    match = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    line = max(1, len(lines)) if match is None else int(match[1])
    statement = lines[line - 1] if lines else ""
    if twice := _said_twice(message, statement):
        return line, f"{twice} is there already"
    if match is None:
        return line, message
    bare = _BARE_VALUE.fullmatch(statement)
    hint = ""
    if bare:
        shown = "…" if is_secret(bare[1]) else bare[2]
        hint = f'; text needs quotes: {bare[1]} = "{shown}"'
    return line, f"{message[: match.start()]} (column {match[2]}){hint}"


def _said_twice(message: str, statement: str) -> str:
    """The key or table that is there for the second time; "" when that isn't what is wrong."""
    if inline := re.match(r"Duplicate inline table key '(.*)'", message):
        return f'"{inline[1]}"'
    if not re.match(r"Cannot (overwrite a value|declare .* twice)", message):
        return ""
    if header := _HEADER.match(statement):
        return header[1]
    key = _KEY.match(statement)
    return f'"{key[1]}"' if key else ""


def _paths(value: object, path: KeyPath) -> Iterator[KeyPath]:
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _paths(inner, (*path, key))
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from _paths(inner, (*path, position))
