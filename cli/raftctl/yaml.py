"""Plain data as YAML 1.2: a small emitter, so that no YAML library has to be installed."""

from __future__ import annotations

import json
import re

# What may stand without quotes: it can't be taken for a number, a date, null or a truth value.
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*\Z")
_RESERVED = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
# YAML allows no raw DEL, C1 controls, line separators or byte order mark; JSON does.
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match.group()):04x}"


def scalar(value: object) -> str:
    """One value on one line. Numbers and strings look as in JSON, which YAML reads alike."""
    if isinstance(value, str):
        if _PLAIN.match(value) and value.lower() not in _RESERVED:
            return value
        return _UNPRINTABLE.sub(_escape, json.dumps(value, ensure_ascii=False))
    return json.dumps(value)


def dump(value: object) -> str:
    """`value`: dicts with string keys, lists, strings, numbers, booleans and None. Ends with a
    newline.
    """
    return "\n".join(_lines(value)) + "\n"


def _lines(value: object) -> list[str]:
    if isinstance(value, dict) and value:
        return [line for key, item in value.items() for line in _entry(f"{scalar(key)}:", item)]
    if isinstance(value, list) and value:
        return [line for item in value for line in _item(item)]
    return [_leaf(value)]


def _entry(head: str, value: object) -> list[str]:
    if isinstance(value, dict | list) and value:
        return [head, *(f"  {line}" for line in _lines(value))]
    return [f"{head} {_leaf(value)}"]


def _item(value: object) -> list[str]:
    first, *rest = _lines(value)
    return [f"- {first}", *(f"  {line}" for line in rest)]


def _leaf(value: object) -> str:
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, list):
        return "[]"
    return scalar(value)
